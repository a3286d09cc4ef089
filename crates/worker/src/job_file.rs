//! A file of jobs: one JSON object per line, `{"id","video","question","choices"?,"plan"?,"set"?}`.
//!
//! Every line stands for itself: one that cannot be read is kept with its number and does not stop the rest.
//! The file is untrusted, so a line is never read further than [`MAX_LINE_BYTES`], whatever it claims to be.

mod lines;

use std::{collections::HashMap, io, io::BufRead};

use serde::Deserialize;
use serde_json::{Map, Value};
use spectemp_store::{BadLine, LocationError, location};
use spectemp_types::{JobSpec, Plan, PlanError, Question, QuestionError, UriError, VideoUri};

pub use lines::MAX_LINE_BYTES;

use lines::{Line, Lines};

/// The longest id of a job, in bytes.
pub const MAX_ID_BYTES: usize = 512;

/// What a line's job has where the line does not say otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// The plan's name.
    pub plan: String,
    /// `key=value` overrides, applied to every line's plan before the line's own `"set"`.
    pub set: Vec<String>,
    /// The folder or prefix that all videos must lie in; relative ones are taken from it. Without it they may lie
    /// anywhere, and relative ones are taken from the current folder.
    pub videos: Option<VideoUri>,
}

/// One job and the line that asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileJob {
    /// Line number, from 1.
    pub line: u64,
    /// The job.
    pub spec: JobSpec,
}

/// What a file of jobs holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFile {
    /// The jobs, in the order of their lines.
    pub jobs: Vec<FileJob>,
    /// The lines that are none.
    pub bad: Vec<BadLine>,
}

/// Why a line is no job.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("line is over {MAX_LINE_BYTES} bytes long")]
    TooLong,
    #[error("line is not valid UTF-8 (byte {0} of it)")]
    Encoding(usize),
    #[error("line is no job: {0}")]
    Json(String),
    #[error("id is empty")]
    EmptyId,
    #[error("id has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    LongId(usize),
    #[error("id {0:?} holds control characters")]
    ControlId(String),
    #[error("id {id:?} stands on line {earlier} already{note}", note = if *same { "" } else { ", with other content" })]
    Duplicate { id: String, earlier: u64, same: bool },
    #[error(transparent)]
    Question(#[from] QuestionError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(transparent)]
    Location(#[from] LocationError),
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJob {
    id: String,
    video: String,
    question: String,
    #[serde(default)]
    choices: Vec<String>,
    plan: Option<String>,
    #[serde(default)]
    set: Map<String, Value>,
}

impl JobFile {
    /// Reads all lines of `reader`.
    ///
    /// # Errors
    /// Only where reading itself fails; what is wrong with a line lies in [`JobFile::bad`].
    pub fn read(reader: impl BufRead, defaults: &Defaults) -> io::Result<Self> {
        let mut file = Self::default();
        let mut seen: HashMap<String, usize> = HashMap::new();
        for line in Lines::new(reader) {
            let (line, content) = line?;
            if matches!(&content, Line::Text(text) if text.trim().is_empty()) {
                continue;
            }
            match read_line(content, defaults).and_then(|spec| file.check_new(&seen, spec)) {
                Ok(spec) => {
                    seen.insert(spec.id.clone(), file.jobs.len());
                    file.jobs.push(FileJob { line, spec });
                }
                Err(error) => file.bad.push(BadLine { line, error: error.to_string() }),
            }
        }
        Ok(file)
    }

    /// `spec` itself, where no earlier line has its id.
    fn check_new(&self, seen: &HashMap<String, usize>, spec: JobSpec) -> Result<JobSpec, LineError> {
        let Some(earlier) = seen.get(&spec.id).and_then(|&index| self.jobs.get(index)) else {
            return Ok(spec);
        };
        let same = earlier.spec.fingerprint() == spec.fingerprint();
        Err(LineError::Duplicate { id: spec.id, earlier: earlier.line, same })
    }
}

fn read_line(line: Line, defaults: &Defaults) -> Result<JobSpec, LineError> {
    let text = match line {
        Line::Text(text) => text,
        Line::TooLong => return Err(LineError::TooLong),
        Line::NotUtf8 { valid_up_to } => return Err(LineError::Encoding(valid_up_to + 1)),
    };
    let raw: RawJob = serde_json::from_str(&text).map_err(|cause| LineError::Json(without_line(&cause)))?;
    check_id(&raw.id)?;
    let plan = Plan::named(raw.plan.as_deref().unwrap_or(&defaults.plan))?
        .set_all(defaults.set.iter().map(String::as_str))?
        .set_object(&raw.set)?;
    Ok(JobSpec {
        id: raw.id,
        video: place(&raw.video, defaults.videos.as_ref())?,
        question: Question::new(raw.question, raw.choices)?,
        plan,
    })
}

/// The video in the one form that the ledger uses, inside of `prefix` where there is one.
fn place(video: &str, prefix: Option<&VideoUri>) -> Result<VideoUri, LineError> {
    Ok(match prefix {
        Some(prefix) => location::under(prefix, video)?,
        None => location::normalize(&VideoUri::parse(video)?)?,
    })
}

fn check_id(id: &str) -> Result<(), LineError> {
    if id.trim().is_empty() {
        return Err(LineError::EmptyId);
    }
    if id.len() > MAX_ID_BYTES {
        return Err(LineError::LongId(id.len()));
    }
    if id.chars().any(char::is_control) {
        return Err(LineError::ControlId(id.to_owned()));
    }
    Ok(())
}

/// The cause with its column only: serde's "line 1" would be mistaken for the file's.
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

    fn defaults() -> Defaults {
        Defaults { plan: "demo".to_owned(), set: vec!["seed=7".to_owned()], videos: None }
    }

    fn read(bytes: impl AsRef<[u8]>) -> JobFile {
        JobFile::read(bytes.as_ref(), &defaults()).unwrap()
    }

    fn only_error(bytes: impl AsRef<[u8]>) -> String {
        let file = read(bytes);
        assert!(file.jobs.is_empty(), "{file:?}");
        assert_eq!(file.bad.len(), 1, "{file:?}");
        file.bad[0].error.clone()
    }

    #[test]
    fn a_full_line_is_read() {
        let file = read(
            "\u{feff}{\"id\":\"a\",\"video\":\"/v.mp4\",\"question\":\"Which?\",\"choices\":[\"x\",\"y\"],\
             \"plan\":\"paper16\",\"set\":{\"max_rounds\":1,\"seed\":9}}\r\n\n  \t\n\
             {\"id\":\"b\",\"video\":\"s3://b/v.mp4\",\"question\":\"What?\"}",
        );
        assert!(file.bad.is_empty(), "{file:?}");
        assert_eq!(file.jobs.iter().map(|job| job.line).collect::<Vec<_>>(), [1, 4]);
        let first = &file.jobs[0].spec;
        assert_eq!(first.question.choices, ["x", "y"]);
        assert_eq!((first.plan.name.as_str(), first.plan.settings.max_rounds), ("paper16", 1));
        assert_eq!(first.plan.settings.seed, 9, "a line's own setting goes over the command's");
        assert_eq!(file.jobs[1].spec.plan.name, "demo");
        assert_eq!(file.jobs[1].spec.plan.settings.seed, 7);
    }

    #[test]
    fn bad_lines_are_named_and_do_not_stop_the_rest() {
        let good = |id: &str| format!("{{\"id\":\"{id}\",\"video\":\"/v.mp4\",\"question\":\"Q?\"}}\n");
        let mut bytes = good("a").into_bytes();
        bytes.extend(b"{\"id\":\"b\"\n\xff\xfe\n");
        bytes.extend(vec![b'x'; MAX_LINE_BYTES + 10]);
        bytes.push(b'\n');
        bytes.extend(good("a").into_bytes());
        bytes.extend(good("c").into_bytes());
        bytes.extend(b"{\"id\":\"a\",\"video\":\"/other.mp4\",\"question\":\"Q?\"}");
        let file = read(bytes);
        assert_eq!(file.jobs.iter().map(|job| job.line).collect::<Vec<_>>(), [1, 6]);
        assert_eq!(file.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4, 5, 7]);
        let errors: Vec<_> = file.bad.iter().map(|bad| bad.error.as_str()).collect();
        assert!(errors[0].contains("EOF while parsing") && errors[0].contains("(column 9)"), "{errors:?}");
        assert!(errors[1].contains("UTF-8 (byte 1"), "{errors:?}");
        assert!(errors[2].contains("over 1048576 bytes"), "{errors:?}");
        assert_eq!(errors[3], "id \"a\" stands on line 1 already");
        assert_eq!(errors[4], "id \"a\" stands on line 1 already, with other content");
    }

    #[test]
    fn no_line_leaves_the_prefix() {
        let defaults = Defaults { videos: Some(VideoUri::parse("s3://archive/tv").unwrap()), ..defaults() };
        let line =
            |video: &str| format!("{{\"id\":\"{video}\",\"video\":\"{video}\",\"question\":\"Q?\"}}\n");
        let text = ["a.mp4", "../b.mp4", "s3://archive/tv/c.mp4", "s3://archive/tv2/d.mp4", "/e.mp4"]
            .map(line)
            .concat();
        let file = JobFile::read(text.as_bytes(), &defaults).unwrap();
        let videos: Vec<_> = file.jobs.iter().map(|job| job.spec.video.expose()).collect();
        assert_eq!(videos, ["s3://archive/tv/a.mp4", "s3://archive/tv/c.mp4"]);
        assert_eq!(file.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 4, 5]);
        assert!(file.bad.iter().all(|bad| bad.error.contains("outside of \"s3://archive/tv\"")), "{file:?}");
    }

    #[test]
    fn what_is_wrong_is_said_by_name() {
        let with = |rest: &str| format!("{{\"id\":\"a\",\"video\":\"/v.mp4\",\"question\":\"Q?\"{rest}}}");
        assert!(only_error(with(",\"frames\":3")).contains("unknown field `frames`"));
        assert!(only_error(with(",\"set\":{\"frames\":3}")).contains("unknown setting \"frames\""));
        assert!(only_error(with(",\"set\":{\"seed\":\"x\"}")).contains("setting seed cannot be"));
        assert!(only_error(with(",\"plan\":\"p\"")).contains("unknown plan \"p\""));
        assert!(only_error(with(",\"choices\":[\"x\"]")).contains("1 choices"));
        assert!(only_error(with(",\"choices\":\"x\"")).contains("invalid type: string"));
        assert!(only_error(with(",\"id\":\"b\"")).contains("duplicate field `id`"));
        assert!(
            only_error("{\"id\":3,\"video\":\"/v\",\"question\":\"Q\"}").contains("invalid type: integer")
        );
        assert!(only_error("{\"id\":\"a\",\"question\":\"Q\"}").contains("missing field `video`"));
        assert!(only_error("[1]").contains("line is no job"));
        assert!(only_error("{\"id\":\" \",\"video\":\"/v\",\"question\":\"Q\"}").contains("id is empty"));
        assert!(
            only_error("{\"id\":\"a\\nb\",\"video\":\"/v\",\"question\":\"Q\"}")
                .contains("control characters")
        );
        assert!(
            only_error("{\"id\":\"a\",\"video\":\"ftp://h/v\",\"question\":\"Q\"}")
                .contains("scheme \"ftp\"")
        );
        assert!(
            only_error("{\"id\":\"a\",\"video\":\"/v\",\"question\":\"\"}").contains("question is empty")
        );
    }
}
