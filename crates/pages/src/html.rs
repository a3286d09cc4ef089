//! The templates' environment. Every value is escaped; a page's own policy forbids scripts and all that is not inside it.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, value::Serde};
use serde::Serialize;

/// Why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A template failed: a fault of this program.
    #[error("page template {name} failed: {source}")]
    Template {
        /// The template.
        name: &'static str,
        /// What minijinja says.
        source: minijinja::Error,
    },
}

const TEMPLATES: [(&str, &str); 4] = [
    ("parts.html", include_str!("../templates/parts.html")),
    ("style.css", include_str!("../templates/style.css")),
    ("trace.html", include_str!("../templates/trace.html")),
    ("report.html", include_str!("../templates/report.html")),
];

/// The page `name` for `view`.
pub(crate) fn render(name: &'static str, view: &impl Serialize) -> Result<String, PageError> {
    let fail = |source| PageError::Template { name, source };
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|name| {
        if name.ends_with(".css") { AutoEscape::None } else { AutoEscape::Html }
    });
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    for (name, source) in TEMPLATES {
        environment.add_template(name, source).map_err(fail)?;
    }
    environment
        .get_template(name)
        .and_then(|template| template.render(Value::from(Serde(view))))
        .map_err(fail)
}
