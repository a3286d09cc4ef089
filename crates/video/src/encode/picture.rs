//! PNG: lossless single frames, for thumbnails and `spectemp frames`.

use std::path::Path;

use spectemp_engine::RgbImage;

use super::EncodeError;

/// An image as the bytes of a PNG file.
///
/// # Errors
/// An empty image, or a buffer that does not fit its size.
pub fn png_bytes(image: &RgbImage) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width, image.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let fail = |cause| EncodeError::codec("encode a PNG", cause);
    let mut writer = encoder.write_header().map_err(fail)?;
    writer.write_image_data(&image.data).map_err(fail)?;
    writer.finish().map_err(fail)?;
    Ok(bytes)
}

/// Writes an image as a PNG file.
///
/// # Errors
/// As [`png_bytes`], and a file that cannot be written.
pub fn write_png(path: &Path, image: &RgbImage) -> Result<(), EncodeError> {
    let written = std::fs::write(path, png_bytes(image)?);
    written.map_err(|cause| EncodeError::File {
        step: "write",
        path: path.to_path_buf(),
        cause: cause.to_string(),
    })
}
