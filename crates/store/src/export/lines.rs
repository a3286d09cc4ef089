//! The lines of the JSON files.

use serde::Serialize;
use spectemp_types::{Answer, JobId, Question, Totals};

use super::BadLine;
use crate::{AnsweredJob, FailedJob};

/// A line of `answers.jsonl`: the id and the fields of `ask --json` without the rounds, and what was asked.
#[derive(Serialize)]
pub(super) struct AnswerLine<'a> {
    id: &'a str,
    #[serde(flatten)]
    answer: &'a Answer,
    totals: &'a Totals,
    job_id: JobId,
    video: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_etag: Option<&'a str>,
    #[serde(flatten)]
    question: QuestionFields<'a>,
    plan: &'a str,
}

#[derive(Serialize)]
struct QuestionFields<'a> {
    question: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    choices: &'a [String],
}

/// A line of `errors.jsonl`.
#[derive(Serialize)]
pub(super) struct ErrorLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<JobId>,
}

pub(super) fn answer(row: &AnsweredJob) -> AnswerLine<'_> {
    let spec = &row.job.spec;
    let Question { text, choices } = &spec.question;
    AnswerLine {
        id: &spec.id,
        answer: &row.answer.answer,
        totals: &row.answer.totals,
        job_id: row.job.id,
        video: &row.answer.video.uri,
        video_etag: row.answer.video.etag.as_deref(),
        question: QuestionFields { question: text, choices },
        plan: &spec.plan.name,
    }
}

pub(super) fn bad_line(bad: &BadLine) -> ErrorLine<'_> {
    ErrorLine { line: Some(bad.line), id: None, error: &bad.error, job_id: None }
}

pub(super) fn failure(row: &FailedJob) -> ErrorLine<'_> {
    let error = row.job.error.as_deref().unwrap_or("failed without a message");
    ErrorLine { line: None, id: Some(&row.job.spec.id), error, job_id: Some(row.job.id) }
}
