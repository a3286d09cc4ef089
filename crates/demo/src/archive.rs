//! An archive: how many videos, how long, how fast, and the plan of each.

use serde::{Deserialize, Serialize};

use crate::{
    DemoVideo,
    rng::{Source, mix},
    video::VideoShape,
};

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArchiveOptions {
    /// The length of each video, in seconds; each within [`Archive::SECONDS`].
    pub seconds: Vec<u32>,
    /// Frame rates to choose from; each within [`Archive::FPS`].
    pub fps: Vec<u32>,
    /// Questions per video, 1 to 5 (no video has fewer scenes).
    pub questions_per_video: usize,
}

/// Why an archive cannot be planned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ArchiveError {
    /// No lengths or no frame rates.
    #[error("archive needs at least one length and one frame rate")]
    Empty,
    /// A length outside of the domain.
    #[error("video of {0} s is outside of the domain: give 40 to 2000 s")]
    Seconds(u32),
    /// A frame rate outside of the domain.
    #[error("frame rate {0} is outside of the domain: give 2 to 30 frames a second")]
    Fps(u32),
    /// A number of questions that not every video can have.
    #[error("{0} questions per video are not possible: give 1 to 5")]
    Questions(usize),
}

/// Plans archives.
pub struct Archive;

impl Archive {
    /// Version of the pixels that follow from a plan: files made by another one are not the same.
    pub const VERSION: u32 = 1;
    /// Lengths of the domain.
    pub const SECONDS: std::ops::RangeInclusive<u32> = 40..=2000;
    /// Frame rates of the domain.
    pub const FPS: std::ops::RangeInclusive<u32> = 2..=30;

    /// The videos that follow from `seed`: one for each length, in that order.
    ///
    /// # Errors
    /// Options outside of the domain.
    pub fn plan(seed: u64, options: &ArchiveOptions) -> Result<Vec<DemoVideo>, ArchiveError> {
        check(options)?;
        let videos = options.seconds.iter().enumerate().map(|(i, seconds)| {
            let own = mix(seed ^ mix(i as u64));
            let mut source = Source::new(&[own, 1]);
            let fps = options.fps[source.index(options.fps.len())];
            let shape = VideoShape {
                seconds: *seconds,
                fps,
                gop: draw_gop(&mut source, fps),
                questions: options.questions_per_video,
            };
            DemoVideo::draw(format!("{i:04}-{seconds}s"), own, &shape)
        });
        Ok(videos.collect())
    }

    /// `count` lengths between `low` and `high` seconds that grow by the same factor.
    pub fn spread(count: usize, low: u32, high: u32) -> Vec<u32> {
        let ratio = f64::from(high) / f64::from(low);
        let steps = count.saturating_sub(1).max(1) as f64;
        (0..count).map(|i| (f64::from(low) * ratio.powf(i as f64 / steps)).round() as u32).collect()
    }
}

/// Usual distances of keyframes: two seconds, ten seconds, x264's default of 250 frames.
fn draw_gop(source: &mut Source, fps: u32) -> u32 {
    [2 * fps, 10 * fps, 250][source.index(3)]
}

fn check(options: &ArchiveOptions) -> Result<(), ArchiveError> {
    if options.seconds.is_empty() || options.fps.is_empty() {
        return Err(ArchiveError::Empty);
    }
    if let Some(seconds) = options.seconds.iter().find(|s| !Archive::SECONDS.contains(s)) {
        return Err(ArchiveError::Seconds(*seconds));
    }
    if let Some(fps) = options.fps.iter().find(|fps| !Archive::FPS.contains(fps)) {
        return Err(ArchiveError::Fps(*fps));
    }
    if !(1..=5).contains(&options.questions_per_video) {
        return Err(ArchiveError::Questions(options.questions_per_video));
    }
    Ok(())
}
