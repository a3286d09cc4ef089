//! One job as users write it: a line of a file of jobs, or the body of a request. One contract for both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{JobSpec, MomentError, Plan, PlanError, Question, QuestionError, VideoUri, moment::parse_moment};

/// The longest id of a job, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// `{"id","video","question","choices"?,"plan"?,"set"?,"priority"?,"deadline"?}`; any other field is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JobText {
    /// The user's name for the job, unique in its batch, at most 512 bytes without control characters. Every line of a
    /// file needs one; a job that is submitted alone is given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// A path or URI (`file`, `s3`, `gs`, `az`, `http`, `https`).
    pub video: String,
    /// What is asked, at most 8 KiB.
    pub question: String,
    /// 2 to 26 option texts, different in more than case; without them the answer is free text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// `paper16`, `paper64` or `demo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Settings of the plan by name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub set: Map<String, Value>,
    /// Higher ones are claimed first; 0 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// When the answer is of no use any more (RFC 3339): a job that has none by then fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

/// Why a text is no job.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum JobTextError {
    /// Not the JSON object that is wanted.
    #[error("{0}")]
    Json(String),
    /// No id where one is needed.
    #[error("missing field `id`")]
    NoId,
    /// An id without a visible character.
    #[error("id is empty")]
    EmptyId,
    /// More than [`MAX_ID_BYTES`].
    #[error("id has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    LongId(usize),
    /// Control characters in the id.
    #[error("id {0:?} holds control characters")]
    ControlId(String),
    /// No question.
    #[error(transparent)]
    Question(#[from] QuestionError),
    /// No such plan or setting.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No moment.
    #[error("deadline {0}")]
    Deadline(#[from] MomentError),
}

/// What a job has where it does not say otherwise.
#[derive(Clone, Copy, Debug)]
pub struct PlanDefaults<'a> {
    /// The plan's name.
    pub plan: &'a str,
    /// `key=value` overrides, applied before the job's own.
    pub set: &'a [String],
}

impl JobText {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// [`JobTextError::Json`], which names the column (a line number of the object's own would be mistaken for the
    /// file's).
    pub fn parse(text: &str) -> Result<Self, JobTextError> {
        serde_json::from_str(text).map_err(|cause| JobTextError::Json(without_line(&cause)))
    }

    /// The id, checked.
    ///
    /// # Errors
    /// No id, an empty one, one that is too long or holds control characters.
    pub fn checked_id(&self) -> Result<&str, JobTextError> {
        let id = self.id.as_deref().ok_or(JobTextError::NoId)?;
        if id.trim().is_empty() {
            return Err(JobTextError::EmptyId);
        }
        if id.len() > MAX_ID_BYTES {
            return Err(JobTextError::LongId(id.len()));
        }
        if id.chars().any(char::is_control) {
            return Err(JobTextError::ControlId(id.to_owned()));
        }
        Ok(id)
    }

    /// The plan in force.
    ///
    /// # Errors
    /// No such plan or setting, a value that does not fit.
    pub fn plan(&self, defaults: &PlanDefaults) -> Result<Plan, PlanError> {
        Plan::named(self.plan.as_deref().unwrap_or(defaults.plan))?
            .set_all(defaults.set.iter().map(String::as_str))?
            .set_object(&self.set)
    }

    /// The deadline, milliseconds since 1970.
    ///
    /// # Errors
    /// A text that is no moment.
    pub fn deadline_ms(&self) -> Result<Option<i64>, MomentError> {
        self.deadline.as_deref().map(parse_moment).transpose()
    }

    /// The job, its video already found to lie at `video`.
    ///
    /// # Errors
    /// Everything that is wrong with it besides the video.
    pub fn into_spec(self, video: VideoUri, defaults: &PlanDefaults) -> Result<JobSpec, JobTextError> {
        let id = self.checked_id()?.to_owned();
        let plan = self.plan(defaults)?;
        let question = Question::new(self.question, self.choices)?;
        Ok(JobSpec { id, video, question, plan })
    }
}

/// The cause with its column only.
fn without_line(cause: &serde_json::Error) -> String {
    let text = cause.to_string();
    let end = format!(" at line {} column {}", cause.line(), cause.column());
    match text.strip_suffix(&end) {
        Some(before) => format!("{before} (column {})", cause.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: PlanDefaults<'static> = PlanDefaults { plan: "demo", set: &[] };

    fn spec(text: &str) -> Result<JobSpec, JobTextError> {
        JobText::parse(text)?.into_spec(VideoUri::parse("/v.mp4").unwrap(), &DEFAULTS)
    }

    #[test]
    fn a_full_text_is_read() {
        let text = JobText::parse(
            "{\"id\":\"a\",\"video\":\"/v.mp4\",\"question\":\"Which?\",\"choices\":[\"x\",\"y\"],\"plan\":\"paper16\",\
             \"set\":{\"seed\":9},\"priority\":-3,\"deadline\":\"2026-03-01T09:30:00Z\"}",
        )
        .unwrap();
        assert_eq!((text.priority, text.deadline_ms()), (Some(-3), Ok(Some(1_772_357_400_000))));
        let spec = text.into_spec(VideoUri::parse("/v.mp4").unwrap(), &DEFAULTS).unwrap();
        assert_eq!((spec.plan.name.as_str(), spec.plan.settings.seed), ("paper16", 9));
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        let with = |rest: &str| {
            spec(&format!("{{\"id\":\"a\",\"video\":\"/v\",\"question\":\"Q?\"{rest}}}"))
                .unwrap_err()
                .to_string()
        };
        assert!(with(",\"frames\":3").contains("unknown field `frames`"));
        assert!(with(",\"priority\":\"high\"").contains("invalid type: string"));
        assert!(with(",\"set\":{\"frames\":3}").contains("unknown setting"));
        assert_eq!(spec("{\"video\":\"/v\",\"question\":\"Q\"}"), Err(JobTextError::NoId));
        let late = JobText::parse("{\"video\":\"/v\",\"question\":\"Q\",\"deadline\":\"soon\"}").unwrap();
        assert!(late.deadline_ms().unwrap_err().to_string().contains("\"soon\" is no moment"));
    }
}
