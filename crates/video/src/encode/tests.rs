use super::*;

fn noise(width: u32, height: u32, n: u32) -> Vec<u8> {
    (0..width * height * 3)
        .map(|i| ((i / 3 % width) * 2 + n * 5 + (i.wrapping_mul(2_654_435_761) >> 29)) as u8)
        .collect()
}

fn encode(path: &Path, frames: u32, options: &EncodeOptions) -> Result<Encoded, EncodeError> {
    let mut encoder = Encoder::create(path, 112, 96, options)?;
    for n in 0..frames {
        encoder.push(&noise(112, 96, n))?;
    }
    encoder.finish()
}

/// Where the boxes `moov` and `mdat` begin.
fn boxes(file: &[u8]) -> (usize, usize) {
    let find = |name: &[u8]| file.windows(4).position(|window| window == name).unwrap();
    (find(b"moov"), find(b"mdat"))
}

#[test]
fn files_hold_every_frame_at_its_time_and_colour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a:b.mp4");
    let options = EncodeOptions {
        fps: FrameRate { numerator: 5, denominator: 2 },
        gop: Some(10),
        crf: 10.0,
        ..Default::default()
    };
    let encoded = encode(&path, 45, &options).unwrap();
    assert_eq!(encoded.frames, 45);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file stays");

    let mut input = format::input(&format!("file:{}", path.display())).unwrap();
    let track = input.streams().next().unwrap();
    let base = f64::from(track.time_base());
    assert_eq!(track.frames(), 45);
    assert!((track.duration() as f64 * base - 18.0).abs() < 1e-3, "the last frame lasts too");
    let mut decoder = codec::Context::from_parameters(track.parameters()).unwrap().decoder().video().unwrap();
    let (mut times, mut keyframes, mut first) = (Vec::new(), 0, None);
    let mut take = |decoder: &mut ffmpeg::decoder::Video| {
        let mut picture = frame::Video::empty();
        while decoder.receive_frame(&mut picture).is_ok() {
            times.push(picture.timestamp().unwrap() as f64 * base);
            first.get_or_insert_with(|| picture.data(0)[40]);
        }
    };
    let mut packet = Packet::empty();
    while packet.read(&mut input).is_ok() {
        keyframes += u32::from(packet.is_key());
        decoder.send_packet(&packet).unwrap();
        take(&mut decoder);
    }
    decoder.send_eof().unwrap();
    take(&mut decoder);
    assert_eq!(times.len(), 45);
    assert!(times.iter().enumerate().all(|(n, time)| (time - n as f64 * 0.4).abs() < 1e-3), "{times:?}");
    assert!(keyframes >= 5, "{keyframes} keyframes in 45 frames with a GOP of 10");
    // Pixel 40 is a gray of about 80: BT.601 limited gives 16 + 80 · 219 / 255.
    assert!((80..=92).contains(&first.unwrap()), "{first:?}");
}

#[test]
fn the_index_stands_where_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    for faststart in [true, false] {
        encode(&path, 3, &EncodeOptions { faststart, ..Default::default() }).unwrap();
        let (moov, mdat) = boxes(&std::fs::read(&path).unwrap());
        assert_eq!(moov < mdat, faststart);
    }
}

#[test]
fn a_given_thread_count_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let options = EncodeOptions { threads: 2, ..Default::default() };
    let [one, two] = ["one", "two"].map(|name| {
        let path = folder.path().join(name);
        encode(&path, 60, &options).unwrap();
        std::fs::read(path).unwrap()
    });
    assert!(one == two);
}

#[test]
fn wrong_use_is_refused_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    let create =
        |width, height, options: EncodeOptions| Encoder::create(&path, width, height, &options).map(drop);
    assert_eq!(create(111, 96, EncodeOptions::default()), Err(EncodeError::Size { width: 111, height: 96 }));
    assert_eq!(create(0, 96, EncodeOptions::default()), Err(EncodeError::Size { width: 0, height: 96 }));
    assert_eq!(
        create(96, 96, EncodeOptions { crf: 52.0, ..Default::default() }),
        Err(EncodeError::Crf(52.0))
    );
    assert!(matches!(
        create(96, 96, EncodeOptions { crf: f32::NAN, ..Default::default() }),
        Err(EncodeError::Crf(_))
    ));
    assert_eq!(
        create(96, 96, EncodeOptions { gop: Some(0), ..Default::default() }),
        Err(EncodeError::Gop(0))
    );
    let still = EncodeOptions { fps: FrameRate::whole(0), ..Default::default() };
    assert_eq!(create(96, 96, still), Err(EncodeError::Rate { numerator: 0, denominator: 1 }));
    assert_eq!(encode(&path, 0, &EncodeOptions::default()), Err(EncodeError::NoFrames));
    let mut encoder = Encoder::create(&path, 96, 96, &EncodeOptions::default()).unwrap();
    assert_eq!(encoder.push(&[0; 7]), Err(EncodeError::FrameBytes { got: 7, expected: 96 * 96 * 3 }));
    drop(encoder);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let lost = encode(&folder.path().join("no/such/clip.mp4"), 1, &EncodeOptions::default());
    assert!(
        matches!(lost, Err(EncodeError::File { ref cause, .. }) if cause.contains("No such file")),
        "{lost:?}"
    );
}

#[test]
fn a_png_gives_the_pixels_back() {
    let image = spectemp_engine::RgbImage { width: 30, height: 20, data: noise(30, 20, 1).into() };
    let bytes = png_bytes(&image).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height, info.color_type), (30, 20, png::ColorType::Rgb));
    assert!(pixels == noise(30, 20, 1));
    let wrong = spectemp_engine::RgbImage { width: 31, height: 20, data: noise(30, 20, 1).into() };
    assert!(matches!(png_bytes(&wrong), Err(EncodeError::Codec { .. })));
}
