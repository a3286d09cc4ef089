//! Decoded frames to upright RGB at the wanted sizes.

use ffmpeg_next::frame;
use spectemp_engine::{PixelBudget, RgbImage, resize_bicubic, smart_resize};
use spectemp_types::Scaler;

use crate::{
    VideoError,
    ffi::{Layout, ToRgb},
    orient::Orientation,
};

/// How frames of one video are shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Display {
    /// Width of a sample over its height.
    pub(crate) aspect: f64,
    pub(crate) orientation: Orientation,
}

impl Display {
    /// Displayed size of a picture of `width` × `height` samples.
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        let wide = ((f64::from(width) * self.aspect).round() as u32).max(1);
        if self.orientation.swaps_sides() { (height, wide) } else { (wide, height) }
    }

    /// The size before turning that becomes `(width, height)` by turning.
    fn unturned(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.orientation.swaps_sides() { (height, width) } else { (width, height) }
    }
}

/// Converts the frames of one run; keeps swscale's contexts.
pub(crate) struct Converter<'a> {
    uri: &'a str,
    display: Display,
    scaler: Scaler,
    contexts: Vec<ToRgb>,
}

impl<'a> Converter<'a> {
    pub(crate) fn new(uri: &'a str, display: Display, scaler: Scaler) -> Self {
        Self { uri, display, scaler, contexts: Vec::new() }
    }

    /// One image per size; one at the displayed size for an empty list.
    pub(crate) fn images(
        &mut self,
        frame: &frame::Video,
        sizes: &[Option<PixelBudget>],
    ) -> Result<Vec<RgbImage>, VideoError> {
        let shown = self.display.size(frame.width(), frame.height());
        let targets = sizes
            .iter()
            .map(|size| size.map_or(Ok(shown), |budget| smart_resize(shown.0, shown.1, budget)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| self.failed(&error))?;
        if self.scaler == Scaler::Swscale {
            return targets.into_iter().map(|target| self.by_swscale(frame, target)).collect();
        }
        let upright = self.by_swscale(frame, self.display_native(frame))?;
        targets
            .into_iter()
            .map(|(width, height)| {
                resize_bicubic(&upright, width, height).map_err(|error| self.failed(&error))
            })
            .collect()
    }

    /// The upright size at which no sample is interpolated.
    fn display_native(&self, frame: &frame::Video) -> (u32, u32) {
        self.display.unturned((frame.width(), frame.height()))
    }

    /// Converted and scaled by swscale, then turned, which loses nothing.
    fn by_swscale(&mut self, frame: &frame::Video, target: (u32, u32)) -> Result<RgbImage, VideoError> {
        let (width, height) = self.display.unturned(target);
        let data = self.context(Layout::of(frame), (width, height))?.run(frame);
        let data = data.map_err(|error| self.failed(&error))?;
        Ok(self.display.orientation.turn(RgbImage { width, height, data: data.into() }))
    }

    fn context(&mut self, source: Layout, target: (u32, u32)) -> Result<&mut ToRgb, VideoError> {
        let known = self.contexts.iter().position(|context| context.fits(source, target));
        let index = match known {
            Some(index) => index,
            None => {
                let context = ToRgb::new(source, target).map_err(|error| self.failed(&error))?;
                self.contexts.push(context);
                self.contexts.len() - 1
            }
        };
        Ok(&mut self.contexts[index])
    }

    fn failed(&self, error: &dyn std::error::Error) -> VideoError {
        VideoError::Pixels { uri: self.uri.to_owned(), cause: format!("frame cannot be converted: {error}") }
    }
}
