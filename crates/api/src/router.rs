//! All routes and the layers around them.

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{answers, auth, batches, docs, error::ApiError, health, index, jobs, problem, state::AppState};

const DOCUMENT: &str = "/api/v1/openapi.json";

/// The documented routes, without layers.
pub(crate) fn documented() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(docs::Document::openapi()).nest("/api/v1", keyed()).merge(health::routes())
}

/// The routes that need a key.
fn keyed() -> OpenApiRouter<AppState> {
    jobs::routes().merge(batches::routes()).merge(answers::routes()).merge(index::routes())
}

/// The whole service.
pub fn router(state: AppState) -> Router {
    let (_, document) = documented().split_for_parts();
    let document = docs::complete(document);
    let asked = middleware::from_fn_with_state(state.clone(), auth::authenticate);
    let (keyed, _) = OpenApiRouter::<AppState>::new().nest("/api/v1", keyed()).split_for_parts();
    let (health, _) = health::routes().split_for_parts();
    let swagger = SwaggerUi::new("/docs").config(Config::from(DOCUMENT));
    let limit = state.settings.body_bytes;
    Router::new()
        .merge(keyed.route_layer(asked).layer(DefaultBodyLimit::max(limit)))
        .merge(health.clone())
        .nest("/api/v1", health)
        .route(DOCUMENT, get(move || std::future::ready(Json(document.clone()))))
        .route("/", get(|| std::future::ready(Redirect::to("/docs/"))))
        .merge(Router::<AppState>::from(swagger))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(problem::finish))
        .with_state(state)
}

async fn no_route() -> Response {
    ApiError::NoRoute.into_response()
}

async fn no_method() -> Response {
    ApiError::NoMethod.into_response()
}
