//! Sizes for files rather than models.

use spectemp_engine::PixelBudget;

/// A budget for [`spectemp_engine::FrameRequest::sizes`] that keeps the aspect, makes both sides even and the picture
/// no larger than `max_pixels` (`spectemp frames --max-pixels`). Smaller pictures are not scaled up.
pub fn even_budget(max_pixels: u32) -> PixelBudget {
    PixelBudget { min_pixels: 1, max_pixels, multiple: 2 }
}
