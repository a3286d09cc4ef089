//! Frames as data URLs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{
    ExtendedColorType, ImageEncoder as _,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use spectemp_engine::RgbImage;

/// How frames are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// JPEG.
    Jpeg {
        /// 1 to 100.
        quality: u8,
    },
    /// PNG: exact, and several times as large.
    Png,
}

impl Picture {
    /// `data:image/…;base64,…` of a frame.
    pub(crate) fn data_url(self, frame: &RgbImage) -> Result<String, String> {
        let (width, height, data) = (frame.width, frame.height, &frame.data);
        // The encoders panic where a buffer does not fit its size.
        if data.is_empty() || data.len() as u64 != u64::from(width) * u64::from(height) * 3 {
            return Err(format!("a frame of {width}x{height} px has {} bytes", data.len()));
        }
        let (mut bytes, colour) = (Vec::new(), ExtendedColorType::Rgb8);
        let (kind, written) = match self {
            Self::Jpeg { quality } => {
                let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
                ("jpeg", encoder.write_image(data, width, height, colour))
            }
            Self::Png => ("png", PngEncoder::new(&mut bytes).write_image(data, width, height, colour)),
        };
        written
            .map_err(|cause| format!("a frame of {width}x{height} px cannot be sent as {kind}: {cause}"))?;
        let mut url = format!("data:image/{kind};base64,");
        STANDARD.encode_string(&bytes, &mut url);
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;

    fn frame() -> RgbImage {
        let pixel = |k: u32| [(k % 56 * 4) as u8, (k / 56 * 6) as u8, 90];
        RgbImage { width: 56, height: 28, data: (0..56 * 28).flat_map(pixel).collect() }
    }

    fn decoded(url: &str, kind: &str, format: ImageFormat) -> image::RgbImage {
        let encoded = url.strip_prefix(&format!("data:image/{kind};base64,")).unwrap();
        let bytes = STANDARD.decode(encoded).unwrap();
        image::load_from_memory_with_format(&bytes, format).unwrap().into_rgb8()
    }

    #[test]
    fn jpeg_is_near_and_png_is_the_same() {
        let frame = frame();
        let png = decoded(&Picture::Png.data_url(&frame).unwrap(), "png", ImageFormat::Png);
        assert_eq!((png.width(), png.height(), png.as_raw().as_slice()), (56, 28, &frame.data[..]));
        let worst = |quality| {
            let url = Picture::Jpeg { quality }.data_url(&frame).unwrap();
            let jpeg = decoded(&url, "jpeg", ImageFormat::Jpeg);
            assert_eq!((jpeg.width(), jpeg.height()), (56, 28));
            let differences = jpeg.as_raw().iter().zip(frame.data.iter()).map(|(a, b)| a.abs_diff(*b));
            differences.max().unwrap()
        };
        assert!(worst(90) < 12, "{}", worst(90));
        assert!(worst(5) > worst(90), "the quality is used");
    }

    #[test]
    fn a_frame_that_is_none_is_refused() {
        for (width, height, bytes) in [(0, 28, 0), (2, 2, 11)] {
            let frame = RgbImage { width, height, data: vec![0; bytes].into() };
            assert!(Picture::Jpeg { quality: 90 }.data_url(&frame).unwrap_err().contains("px has"));
            assert!(Picture::Png.data_url(&frame).is_err());
        }
    }
}
