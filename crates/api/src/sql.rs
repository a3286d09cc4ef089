//! Questions in SQL, with limits on time and rows; the result in the form that `Accept` asks for.

mod arrow;

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use spectemp_store::{SqlLimits, SqlTable};
use utoipa::ToSchema;

use crate::{
    answers::accepted, auth::Reader, error::ApiError, extract::ApiJson, problem::ProblemBody, state::AppState,
};

/// The longest query.
const MOST_QUERY_BYTES: usize = 64 * 1024;
const CSV: &str = "text/csv";
const ARROW: &str = "application/vnd.apache.arrow.stream";
const PARQUET: &str = "application/vnd.apache.parquet";

/// A query.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SqlRequest {
    /// One select on the documented views.
    #[schema(
        example = "select id, answer, confidence from answers order by confidence limit 20",
        max_length = 65536
    )]
    query: String,
    /// Most rows; the server's own limit is the most.
    #[schema(minimum = 1)]
    limit: Option<u64>,
    /// Longest run in seconds; the server's own limit is the most.
    #[schema(exclusive_minimum = 0.0)]
    timeout_s: Option<f64>,
}

/// The rows of a query.
#[derive(Serialize, ToSchema)]
pub(crate) struct SqlAnswer {
    /// Names of the columns.
    columns: Vec<String>,
    /// The rows: a value per column.
    #[schema(value_type = Vec<Vec<Value>>)]
    rows: Vec<Vec<Value>>,
    /// True where rows beyond the limit were left out.
    truncated: bool,
}

#[derive(Clone, Copy)]
enum Form {
    Json,
    Csv,
    Arrow,
    Parquet,
}

/// Ask in SQL
///
/// One `select` on the documented views, which hold the caller's own rows. `Accept` chooses JSON, CSV, an Arrow stream
/// or Parquet. The header `x-truncated` says whether rows beyond the limit were left out.
#[utoipa::path(
    post,
    path = "/sql",
    tag = "answers",
    request_body = SqlRequest,
    responses(
        (
            status = 200,
            description = "The rows.",
            content(
                (SqlAnswer = "application/json"),
                (String = "text/csv"),
                (Vec<u8> = "application/vnd.apache.arrow.stream"),
                (Vec<u8> = "application/vnd.apache.parquet")
            ),
            headers(("x-truncated" = bool, description = "True where rows were left out."))
        ),
        (status = 400, description = "Not JSON.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 406, description = "None of the forms is wanted.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 413, description = "Body too large.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "Not application/json.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "A query that is refused, wrong or too slow.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn query(
    State(state): State<AppState>,
    Reader(caller): Reader,
    headers: HeaderMap,
    ApiJson(request): ApiJson<SqlRequest>,
) -> Result<Response, ApiError> {
    let known =
        [("application/json", Form::Json), (CSV, Form::Csv), (ARROW, Form::Arrow), (PARQUET, Form::Parquet)];
    let form = accepted(&headers, &known, Form::Json)?;
    let limits = limits(&request, state.settings.sql)?;
    if request.query.trim().is_empty() {
        return Err(ApiError::Invalid("query is empty: ask a select on the views".to_owned()));
    }
    if request.query.len() > MOST_QUERY_BYTES || request.query.contains('\0') {
        return Err(ApiError::Invalid(format!(
            "query holds a NUL character or has more than {MOST_QUERY_BYTES} bytes"
        )));
    }
    let table = state.store.ledger().sql(&caller.tenant, &request.query, limits).await?;
    let truncated = HeaderValue::from_static(if table.truncated { "true" } else { "false" });
    // Writing may take a while, and is no waiting.
    let written = tokio::task::spawn_blocking(move || write(table, form)).await;
    let mut response = written.map_err(|_| ApiError::Internal)??;
    response.headers_mut().insert("x-truncated", truncated);
    Ok(response)
}

fn limits(request: &SqlRequest, most: SqlLimits) -> Result<SqlLimits, ApiError> {
    let timeout = match request.timeout_s {
        None => most.timeout,
        Some(seconds) if seconds > 0.0 && seconds < 1e9 => Duration::from_secs_f64(seconds).min(most.timeout),
        Some(_) => return Err(ApiError::Invalid("timeout_s must be more than 0".to_owned())),
    };
    let rows = match request.limit {
        None => most.rows,
        Some(0) => return Err(ApiError::Invalid("limit must be at least 1".to_owned())),
        Some(rows) => usize::try_from(rows).unwrap_or(usize::MAX).min(most.rows),
    };
    Ok(SqlLimits { timeout, rows })
}

fn write(table: SqlTable, form: Form) -> Result<Response, ApiError> {
    let bytes = |kind: &'static str, bytes: Vec<u8>| ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    Ok(match form {
        Form::Json => {
            let SqlTable { columns, rows, truncated } = table;
            Json(SqlAnswer { columns, rows, truncated }).into_response()
        }
        Form::Csv => bytes("text/csv; charset=utf-8", csv(&table)?),
        Form::Arrow => bytes(ARROW, arrow::stream(&table).map_err(|cause| unwritable(&cause))?),
        Form::Parquet => bytes(PARQUET, arrow::parquet(&table).map_err(|cause| unwritable(&cause))?),
    })
}

fn unwritable(cause: &dyn std::fmt::Display) -> ApiError {
    tracing::error!(error = %cause, "a table cannot be written");
    ApiError::Internal
}

/// RFC 4180, with line feeds; null is an empty field.
fn csv(table: &SqlTable) -> Result<Vec<u8>, ApiError> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let wrong = |cause: csv::Error| unwritable(&cause);
    writer.write_record(&table.columns).map_err(wrong)?;
    for row in &table.rows {
        writer.write_record(row.iter().map(text)).map_err(wrong)?;
    }
    writer.into_inner().map_err(|cause| unwritable(&cause))
}
