//! The rules of the domain, held against many seeds.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use spectemp_demo::{Archive, ArchiveError, ArchiveOptions, Colour, DemoVideo, Painter, SIDE, digit_rows};

fn options(seconds: &[u32], fps: u32) -> ArchiveOptions {
    ArchiveOptions { seconds: seconds.to_vec(), fps: vec![fps], questions_per_video: 3 }
}

fn video(seed: u64, seconds: u32, fps: u32) -> DemoVideo {
    Archive::plan(seed, &options(&[seconds], fps)).unwrap().remove(0)
}

fn mean(frame: &[u8], left: u32, top: u32, width: u32, height: u32) -> f64 {
    let rows = (top..top + height).flat_map(|y| {
        let start = ((y * SIDE + left) * 3) as usize;
        &frame[start..start + (width * 3) as usize]
    });
    rows.map(|value| f64::from(*value)).sum::<f64>() / f64::from(width * height * 3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn scenes_follow_the_rules(seed: u64, seconds in 40_u32..=2000, fps in 2_u32..=30) {
        let video = video(seed, seconds, fps);
        let length = f64::from(seconds);
        prop_assert!((5..=7).contains(&video.scenes.len()));
        prop_assert_eq!(video.scenes[0].span.start_s, 0.0);
        prop_assert_eq!(video.scenes.last().unwrap().span.end_s, length);
        for pair in video.scenes.windows(2) {
            prop_assert_eq!(pair[0].span.end_s, pair[1].span.start_s);
        }
        for (i, scene) in video.scenes.iter().enumerate() {
            prop_assert!(scene.span.seconds() >= 0.125 * length - 1e-9);
            prop_assert!(video.scenes[..i].iter().all(|other| other.colour != scene.colour));
            let flash = &scene.flash;
            prop_assert!(flash.span.seconds() >= 1.05 - 1e-9 && flash.span.seconds() <= 2.0 + 1e-9);
            prop_assert!(flash.span.start_s >= scene.span.start_s + 0.3 - 1e-9);
            prop_assert!(flash.span.end_s <= scene.span.end_s - 0.3 + 1e-9);
            let (width, height) = flash.plaque();
            prop_assert!(flash.left + width <= SIDE && flash.top + height <= SIDE);
            prop_assert!((7..=9).contains(&flash.cell) && flash.digit < 10);
            prop_assert!(scene.scroll.iter().all(|v| v.abs() <= 6.0) && scene.waver <= 18.0);
        }
    }

    #[test]
    fn ten_uniform_frames_meet_every_scene(seed: u64, seconds in 40_u32..=2000, shift in -0.12_f64..0.12) {
        let video = video(seed, seconds, 2);
        let step = f64::from(seconds) / 10.0;
        for scene in &video.scenes {
            let met = (0..10).any(|k| {
                let time = (f64::from(k) + 0.5 + if k % 2 == 0 { shift } else { -shift }) * step;
                time >= scene.span.start_s && time < scene.span.end_s
            });
            prop_assert!(met, "{:?}", scene.span);
        }
    }

    #[test]
    fn questions_name_their_scene(seed: u64, seconds in 40_u32..=2000) {
        let video = video(seed, seconds, 4);
        prop_assert_eq!(video.questions.len(), 3);
        for question in &video.questions {
            let scene = &video.scenes[question.scene];
            prop_assert_eq!(&question.text, &format!("What digit flashes in the {} scene?", scene.colour));
            prop_assert_eq!(&question.answer, &scene.flash.digit.to_string());
            prop_assert_eq!(question.evidence, scene.flash.span);
        }
    }

    #[test]
    fn one_frame_a_second_meets_every_flash(seed: u64, seconds in 40_u32..=2000, fps in 2_u32..=30) {
        let video = video(seed, seconds, fps);
        for scene in &video.scenes {
            let first = scene.flash.span.start_s.ceil();
            // The frame shown at a whole second is that second's own frame, because rates are whole numbers.
            prop_assert!(first < scene.flash.span.end_s);
        }
    }
}

#[test]
fn a_frame_shows_its_scene_and_the_digit_only_while_it_flashes() {
    for seed in 0..6 {
        let video = video(seed, 64, 8);
        let painter = video.painter();
        for scene in &video.scenes {
            let flash = &scene.flash;
            let during = painter.frame((flash.span.start_s * 8.0).ceil() as u64);
            let before = painter.frame((flash.span.start_s * 8.0).ceil() as u64 - 1);
            assert_eq!(during.len(), Painter::FRAME_BYTES);
            let rows = digit_rows(flash.digit);
            for (row, bits) in rows.iter().enumerate() {
                for column in 0..5 {
                    let (x, y) =
                        (flash.left + 5 + column * flash.cell, flash.top + 5 + row as u32 * flash.cell);
                    let value = mean(&during, x, y, flash.cell, flash.cell);
                    let wanted = if bits >> (4 - column) & 1 == 1 { 245.0 } else { 9.0 };
                    assert!((value - wanted).abs() < 4.0, "cell {row},{column} of {}: {value}", flash.digit);
                }
            }
            let margin = |frame: &[u8]| mean(frame, flash.left, flash.top, flash.plaque().0, 5);
            assert!(
                margin(&during) < 14.0 && margin(&before) > 14.0,
                "{} {}",
                margin(&during),
                margin(&before)
            );
        }
    }
}

#[test]
fn a_plain_scene_has_its_colour() {
    let mut seen = 0;
    for seed in 0..20 {
        let video = video(seed, 40, 2);
        for scene in video.scenes.iter().filter(|scene| scene.texture == spectemp_demo::Texture::Plain) {
            let start = (scene.span.start_s * 2.0).ceil() as u64;
            let frame = video.painter().frame(start);
            // The median is blind to sprite and flash.
            let medians = [0, 1, 2].map(|channel| {
                let mut values: Vec<u8> = frame.iter().skip(channel).step_by(3).copied().collect();
                values.sort_unstable();
                i32::from(values[values.len() / 2])
            });
            for (median, wanted) in medians.iter().zip(scene.colour.rgb()) {
                assert!((median - i32::from(wanted)).abs() <= 20, "{:?} {medians:?}", scene.colour);
            }
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} plain scenes among 20 videos");
}

#[test]
fn the_same_seed_is_the_same_archive() {
    let options = options(&[64, 300], 3);
    let first = Archive::plan(7, &options).unwrap();
    assert_eq!(first, Archive::plan(7, &options).unwrap());
    assert_ne!(first, Archive::plan(8, &options).unwrap());
    assert_eq!(first[1].painter().frame(401), first[1].painter().frame(401));
    assert_ne!(first[1].painter().frame(401), first[1].painter().frame(402));
}

#[test]
fn a_plan_stays_what_it_was() {
    let video = video(1, 64, 2);
    let painter = video.painter();
    let sums: Vec<u64> =
        [0, 50, 127].map(|n| painter.frame(n).iter().map(|value| u64::from(*value)).sum()).to_vec();
    insta::assert_json_snapshot!((&video, sums));
}

#[test]
fn colours_have_names_of_their_own() {
    let mut names: Vec<&str> = Colour::ALL.iter().map(|colour| colour.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 8);
}

#[test]
fn options_outside_of_the_domain_are_refused() {
    assert_eq!(Archive::plan(1, &options(&[39], 2)), Err(ArchiveError::Seconds(39)));
    assert_eq!(Archive::plan(1, &options(&[64], 31)), Err(ArchiveError::Fps(31)));
    assert_eq!(Archive::plan(1, &options(&[], 2)), Err(ArchiveError::Empty));
    let many = ArchiveOptions { questions_per_video: 6, ..options(&[64], 2) };
    assert_eq!(Archive::plan(1, &many), Err(ArchiveError::Questions(6)));
}

#[test]
fn spread_lengths_grow_by_the_same_factor() {
    assert_eq!(Archive::spread(3, 60, 240), [60, 120, 240]);
    assert_eq!(Archive::spread(12, 60, 1200).len(), 12);
}
