//! An hour of video without a file: each frame has one colour, made from its number.

use async_trait::async_trait;
use spectemp_engine::{
    Frame, FrameBatch, FrameError, FrameRequest, FrameSource, PixelBudget, RgbImage, VideoFacts, smart_resize,
};
use spectemp_types::IoFigures;

const DURATION_S: f64 = 3600.0;
const FPS: f64 = 2.0;
const SIDE: u32 = 448;

pub(super) struct Stills;

#[async_trait]
impl FrameSource for Stills {
    fn facts(&self) -> VideoFacts {
        VideoFacts { duration_s: DURATION_S, width: SIDE, height: SIDE }
    }

    async fn frames(&self, request: FrameRequest) -> Result<FrameBatch, FrameError> {
        let frame = |&time_s: &f64| {
            let number = (time_s * FPS).floor().clamp(0.0, DURATION_S * FPS - 1.0);
            let images = request.sizes.iter().map(|size| image(number as u32, *size));
            let images = images.collect::<Result<_, _>>()?;
            let pts_s = number / FPS;
            Ok(Frame { requested_s: time_s, pts_s, stream_pts_s: pts_s, keyframe: true, images })
        };
        let frames = request.times_s.iter().map(frame).collect::<Result<_, FrameError>>()?;
        let io = IoFigures::default();
        Ok(FrameBatch { frames, io, fetch_ms: 0.0, decode_ms: 0.0, warnings: Vec::new() })
    }
}

fn image(number: u32, size: PixelBudget) -> Result<RgbImage, FrameError> {
    let (width, height) =
        smart_resize(SIDE, SIDE, size).map_err(|error| FrameError::Permanent(error.to_string()))?;
    let colour = number.wrapping_mul(2_654_435_761).to_le_bytes();
    let data = colour[..3].repeat((width * height) as usize);
    Ok(RgbImage { width, height, data: data.into() })
}
