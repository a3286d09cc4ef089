//! One job: submit, look at, change.

mod change;
mod create;
mod read;

use spectemp_store::Job;
use spectemp_types::JobId;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{auth::Caller, error::ApiError, state::AppState};

pub(crate) use create::new_job;

/// The batch of jobs that are submitted alone and name none.
pub(crate) const LONE_BATCH: &str = "jobs";

/// The routes of jobs.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(create::create, read::list))
        .routes(routes!(read::one, change::delete, change::patch))
        .routes(routes!(change::cancel))
        .routes(routes!(change::retry))
        .routes(routes!(read::rounds))
        .routes(routes!(read::trace))
        .routes(routes!(read::answer))
        .routes(routes!(crate::events::job))
}

/// The caller's job; another tenant's does not exist.
pub(crate) async fn find(state: &AppState, caller: &Caller, id: JobId) -> Result<Job, ApiError> {
    let job = state.store.ledger().job(id).await?;
    if job.tenant == caller.tenant { Ok(job) } else { Err(ApiError::no_job(&id.to_string())) }
}
