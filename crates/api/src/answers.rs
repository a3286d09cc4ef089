//! Answers: a page as JSON, or all of them as lines.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use spectemp_store::{Cursor, JobFilter, StoreError};
use spectemp_types::JobStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    auth::Reader,
    error::ApiError,
    extract::ApiQuery,
    page,
    problem::ProblemBody,
    shape::{AnswerList, AnswerView},
    sql,
    state::AppState,
};

/// Answers that are read at once for a stream.
const CHUNK: usize = 500;

/// The routes of answers and of queries.
pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(sql::query))
}

/// How answers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Lines,
}

impl Form {
    /// What `Accept` asks for: the first type in it that is known here.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let known = [
            ("application/json", Self::Json),
            ("application/x-ndjson", Self::Lines),
            ("application/jsonl", Self::Lines),
            ("application/x-jsonlines", Self::Lines),
        ];
        accepted(headers, &known, Self::Json)
    }
}

/// The first form that `Accept` names; `default` where it names none or any.
pub(crate) fn accepted<T: Copy>(headers: &HeaderMap, known: &[(&str, T)], default: T) -> Result<T, ApiError> {
    let text: Vec<&str> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let text = text.join(",");
    let mut types = text.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    if text.trim().is_empty() {
        return Ok(default);
    }
    let find = |name: &str| match name {
        "*/*" | "application/*" => Some(default),
        name => known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, form)| *form),
    };
    types.find_map(find).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        ApiError::NotAcceptable(format!("this is given as one of {}", names.join(", ")))
    })
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AnswersQuery {
    /// Only answers of this batch.
    #[serde(default, deserialize_with = "page::filter")]
    batch: Option<String>,
    /// Only answers about this video.
    #[serde(default, deserialize_with = "page::filter")]
    video: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Most rows of a page [default: 100]. All answers come in one stream with `Accept: application/x-ndjson`.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// List answers
///
/// Of all batches, or those that the filters leave; in the order of their jobs' submission.
#[utoipa::path(
    get,
    path = "/answers",
    tag = "answers",
    params(AnswersQuery),
    responses(
        (status = 200, description = "Answers.", content((AnswerList = "application/json"), (String = "application/x-ndjson"))),
        (status = 400, description = "A query that cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 406, description = "Neither JSON nor lines are wanted.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A limit or cursor that is none.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Reader(caller): Reader,
    ApiQuery(query): ApiQuery<AnswersQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let filter = JobFilter {
        tenant: Some(&caller.tenant),
        batch: query.batch.as_deref(),
        status: Some(JobStatus::Answered),
        video: query.video.as_deref(),
    };
    let (limit, after) = (page::limit(query.limit)?, page::after(query.cursor.as_deref())?);
    respond(&state, &filter, Form::of(&headers)?, after, limit).await
}

/// The answers that `filter` leaves, as a page or a stream.
pub(crate) async fn respond(
    state: &AppState,
    filter: &JobFilter<'_>,
    form: Form,
    after: Option<Cursor>,
    limit: usize,
) -> Result<Response, ApiError> {
    if form == Form::Lines {
        return Ok(lines(state.clone(), filter, after));
    }
    let page = state.store.ledger().answers_of(filter, after, limit).await?;
    Ok(Json(AnswerList {
        answers: page.rows.into_iter().map(AnswerView::from).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    })
    .into_response())
}

/// All answers, one JSON object per line, a chunk at a time: as fast as the reader takes them.
fn lines(state: AppState, filter: &JobFilter<'_>, after: Option<Cursor>) -> Response {
    let tenant = filter.tenant.map(str::to_owned);
    let (batch, video) = (filter.batch.map(str::to_owned), filter.video.map(str::to_owned));
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        let mut after = after;
        loop {
            let filter = JobFilter {
                tenant: tenant.as_deref(),
                batch: batch.as_deref(),
                status: Some(JobStatus::Answered),
                video: video.as_deref(),
            };
            let chunk = chunk(&state, &filter, after).await;
            let next = chunk.as_ref().map_or(None, |(_, next)| *next);
            let chunk = chunk.map(|(bytes, _)| bytes).inspect_err(|error| {
                tracing::error!(error = %error, "a stream of answers broke off");
            });
            if sender
                .send(chunk.map_err(|_| std::io::Error::other("the ledger cannot be read")))
                .await
                .is_err()
            {
                return;
            }
            match next {
                Some(next) => after = Some(next),
                None => return,
            }
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

async fn chunk(
    state: &AppState,
    filter: &JobFilter<'_>,
    after: Option<Cursor>,
) -> Result<(Bytes, Option<Cursor>), StoreError> {
    let page = state.store.ledger().answers_of(filter, after, CHUNK).await?;
    let mut bytes = Vec::new();
    for row in page.rows {
        serde_json::to_writer(&mut bytes, &AnswerView::from(row)).unwrap_or_default();
        bytes.push(b'\n');
    }
    Ok((bytes.into(), page.next))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_known_type_is_given() {
        let form = |accept: &str| {
            Form::of(&[(header::ACCEPT, HeaderValue::from_str(accept).unwrap())].into_iter().collect())
        };
        assert_eq!(Form::of(&HeaderMap::new()).unwrap(), Form::Json);
        assert_eq!(form("text/html, */*;q=0.1").unwrap(), Form::Json);
        assert_eq!(form("application/x-ndjson, application/json").unwrap(), Form::Lines);
        assert!(form("text/html").is_err());
    }
}
