//! The events of a job: `status` whenever it changes, `round` for each committed round, `answer`, and `end`.

use axum::{extract::State, http::HeaderMap, response::Response};
use spectemp_store::{AnsweredJob, Job};
use spectemp_types::{JobId, JobStatus};

use super::stream::{self, Story, Told};
use crate::{
    auth::{Caller, Reader},
    error::ApiError,
    extract::JobPath,
    jobs,
    problem::ProblemBody,
    shape::{AnswerView, JobView},
    state::AppState,
};

/// Follow a job
///
/// Server-sent events: `status` (a job) whenever its status changes, `round` (a round) for each committed round,
/// `restart` (a job) where its rounds were dropped because the video or a model changed, `answer`, and at last `end`
/// (a job). With `Last-Event-ID` the stream goes on after that event; after the end the answer is 204.
#[utoipa::path(
    get,
    path = "/jobs/{job_id}/events",
    tag = "jobs",
    params(
        ("job_id" = uuid::Uuid, Path, description = "The job's UUID."),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.")
    ),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        (status = 204, description = "The end was seen already."),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn job(
    State(state): State<AppState>,
    Reader(caller): Reader,
    JobPath(id): JobPath,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = jobs::find(&state, &caller, id).await?;
    let told = stream::last_event_id(&headers).and_then(Position::parse).unwrap_or_default();
    if told.end && has_ended(&job) && told.status == Some(job.status) {
        return Ok(stream::ended());
    }
    let told = Position { end: false, ..told };
    stream::tell(&state, JobStory { state: state.clone(), caller, id, told })
}

/// What was told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    rounds: u32,
    status: Option<JobStatus>,
    end: bool,
}

impl Position {
    /// Reads the id of an event; what is none of ours begins anew.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (rounds, status) = (parts.next()?.parse().ok()?, parts.next()?);
        let status = if status.is_empty() { None } else { Some(status.parse().ok()?) };
        match (parts.next(), parts.next()) {
            (None, None) => Some(Self { rounds, status, end: false }),
            (Some("end"), None) => Some(Self { rounds, status, end: true }),
            _ => None,
        }
    }

    fn id(&self) -> String {
        let status = self.status.map_or("", JobStatus::as_str);
        let end = if self.end { "-end" } else { "" };
        format!("{}-{status}{end}", self.rounds)
    }
}

struct JobStory {
    state: AppState,
    caller: Caller,
    id: JobId,
    told: Position,
}

impl Story for JobStory {
    async fn next(&mut self) -> Result<(Vec<Told>, bool), ApiError> {
        let job = jobs::find(&self.state, &self.caller, self.id).await?;
        let mut told = Vec::new();
        let view = |job: &Job| json(&JobView::from(job.clone()));
        if job.rounds < self.told.rounds {
            self.told.rounds = 0;
            told.push(Told { name: "restart", id: self.told.id(), data: view(&job)? });
        }
        let ended = has_ended(&job);
        // A status that ends comes after the rounds that led to it.
        if !ended {
            self.status(&job, &mut told)?;
        }
        if job.rounds > self.told.rounds {
            let rounds = self.state.store.ledger().rounds(self.id).await?;
            for round in rounds.iter().skip(self.told.rounds as usize) {
                self.told.rounds = round.no + 1;
                told.push(Told { name: "round", id: self.told.id(), data: json(round)? });
            }
        }
        if ended {
            self.status(&job, &mut told)?;
            if job.status == JobStatus::Answered
                && let Some(answer) = self.state.store.ledger().answer(self.id).await?
            {
                let answer = AnswerView::from(AnsweredJob { job: job.clone(), answer });
                told.push(Told { name: "answer", id: self.told.id(), data: json(&answer)? });
            }
            self.told.end = true;
            told.push(Told { name: "end", id: self.told.id(), data: view(&job)? });
        }
        Ok((told, ended))
    }
}

impl JobStory {
    fn status(&mut self, job: &Job, told: &mut Vec<Told>) -> Result<(), ApiError> {
        if self.told.status == Some(job.status) {
            return Ok(());
        }
        self.told.status = Some(job.status);
        told.push(Told { name: "status", id: self.told.id(), data: json(&JobView::from(job.clone()))? });
        Ok(())
    }
}

fn has_ended(job: &Job) -> bool {
    !matches!(job.status, JobStatus::Queued | JobStatus::Running)
}

/// One line of JSON: a line feed would end the event's data.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|_| ApiError::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_is_a_position() {
        for (rounds, status, end) in
            [(0, None, false), (3, Some(JobStatus::Running), false), (4, Some(JobStatus::Answered), true)]
        {
            let position = Position { rounds, status, end };
            assert_eq!(Position::parse(&position.id()), Some(position));
        }
        for bad in ["", "x", "1-gone", "1-running-later", "-1-running", "1-running-end-end"] {
            assert_eq!(Position::parse(bad), None, "{bad}");
        }
    }
}
