//! Traces and results as self-contained HTML and as terminal text. No I/O.
//!
//! Questions, locations and model outputs are hostile: HTML is escaped by the templates and pages forbid scripts and
//! everything from elsewhere by their own policy; terminal text is stripped of control characters.

mod base64;
mod html;
mod marks;
mod report;
mod stage_text;
mod stage_view;
mod stages;
mod terminal;
mod text;
mod timeline;
mod trace;

pub use html::PageError;
pub use report::{DemoAnswer, DemoCell, DemoReport, demo_report_html};
pub use terminal::{stages_text, trace_text};
pub use trace::{Thumbnail, trace_html};
