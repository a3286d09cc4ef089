//! A file of jobs: one JSON object per line, see [`JobText`].
//!
//! Every line stands for itself: one that cannot be read is kept with its number and does not stop the rest.
//! The file is untrusted, so a line is never read further than [`MAX_LINE_BYTES`], whatever it claims to be.

mod lines;

use std::{collections::HashMap, io, io::BufRead};

use spectemp_store::{BadLine, LocationError, location};
use spectemp_types::{
    JobSpec, JobText, JobTextError, Line, MAX_LINE_BYTES, MomentError, PlanDefaults, UriError, VideoUri,
};

use lines::Lines;

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
    /// Higher ones are claimed first.
    pub priority: i32,
    /// When its answer is of no use any more, milliseconds since 1970.
    pub deadline_ms: Option<i64>,
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
    #[error("line is not one JSON object {{\"id\", \"video\", \"question\", …}}: {0}")]
    Json(String),
    #[error(transparent)]
    Job(JobTextError),
    #[error("id {id:?} stands on line {earlier} already{note}", note = if *same { "" } else { ", with other content" })]
    Duplicate { id: String, earlier: u64, same: bool },
    #[error("deadline {0}")]
    Deadline(#[from] MomentError),
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error(transparent)]
    Location(#[from] LocationError),
}

impl From<JobTextError> for LineError {
    fn from(error: JobTextError) -> Self {
        match error {
            JobTextError::Json(cause) => Self::Json(cause),
            missing @ JobTextError::NoId => Self::Json(missing.to_string()),
            other => Self::Job(other),
        }
    }
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
            match read_line(line, content, defaults).and_then(|job| file.check_new(&seen, job)) {
                Ok(job) => {
                    seen.insert(job.spec.id.clone(), file.jobs.len());
                    file.jobs.push(job);
                }
                Err(error) => file.bad.push(BadLine { line, error: error.to_string() }),
            }
        }
        Ok(file)
    }

    /// `job` itself, where no earlier line has its id.
    fn check_new(&self, seen: &HashMap<String, usize>, job: FileJob) -> Result<FileJob, LineError> {
        let Some(earlier) = seen.get(&job.spec.id).and_then(|&index| self.jobs.get(index)) else {
            return Ok(job);
        };
        let same = earlier.spec.fingerprint() == job.spec.fingerprint();
        Err(LineError::Duplicate { id: job.spec.id, earlier: earlier.line, same })
    }
}

fn read_line(number: u64, line: Line, defaults: &Defaults) -> Result<FileJob, LineError> {
    let text = match line {
        Line::Text(text) => JobText::parse(&text)?,
        Line::TooLong => return Err(LineError::TooLong),
        Line::NotUtf8 { valid_up_to } => return Err(LineError::Encoding(valid_up_to + 1)),
    };
    text.checked_id()?;
    let (priority, deadline_ms) = (text.priority.unwrap_or_default(), text.deadline_ms()?);
    let video = place(&text.video, defaults.videos.as_ref())?;
    let spec = text.into_spec(video, &PlanDefaults { plan: &defaults.plan, set: &defaults.set })?;
    Ok(FileJob { line: number, spec, priority, deadline_ms })
}

/// The video in the one form that the ledger uses, inside of `prefix` where there is one.
fn place(video: &str, prefix: Option<&VideoUri>) -> Result<VideoUri, LineError> {
    Ok(match prefix {
        Some(prefix) => location::under(prefix, video)?,
        None => location::normalize(&VideoUri::parse(video)?)?,
    })
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
        assert!(only_error("[1]").contains("not one JSON object"));
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
