//! The OpenAPI document, made from the handlers.

use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::{router, schema};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "spectemp",
        description = "Answers questions about long videos, with evidence. Jobs and batches in, rounds and answers out.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&Security),
    security(("key" = [])),
    tags(
        (name = "jobs", description = "One question about one video."),
        (name = "batches", description = "Many jobs under one name."),
        (name = "answers", description = "Answers, and queries over everything."),
        (name = "indexes", description = "Standing sets of questions over a prefix."),
        (name = "server", description = "How the server is.")
    )
)]
pub(crate) struct Document;

struct Security;

impl Modify for Security {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, made by `spectemp key create`."))
            .build();
        openapi.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// The OpenAPI document (3.1) of this version.
pub fn openapi() -> Value {
    complete(router::documented().split_for_parts().1)
}

/// The document with the nouns of `types` in its components.
pub(crate) fn complete(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        schemas.extend(schema::definitions());
    }
    if let Some(paths) = document.pointer_mut("/paths").and_then(Value::as_object_mut) {
        for (path, methods) in paths {
            let Some(methods) = methods.as_object_mut() else { continue };
            methods.values_mut().for_each(name_after_tag);
            if path.starts_with("/api/v1/") {
                methods.values_mut().for_each(add_common_problems);
            }
        }
    }
    document
}

/// Operations are named after their functions; with the tag before it a name is the only one of its kind.
fn name_after_tag(operation: &mut Value) {
    let tag = operation.pointer("/tags/0").and_then(Value::as_str).unwrap_or_default();
    let name = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
    operation["operationId"] = format!("{tag}_{name}").into();
}

/// What every request with a key can end with.
fn add_common_problems(operation: &mut Value) {
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, description) in [
        ("401", "No API key, or an unknown one."),
        ("403", "The key's role, or a location that this server does not open."),
        ("429", "Too many requests of this key; see `Retry-After`."),
        ("503", "The ledger cannot be reached."),
    ] {
        let problem = json!({
            "description": description,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        responses.entry(status).or_insert(problem);
    }
}
