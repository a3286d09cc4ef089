//! What an index is: where it looks, for which names, and what it asks.

use std::{collections::HashSet, fmt, str::FromStr};

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use spectemp_types::{Plan, PlanDefaults, Question, VideoUri};

use super::check_schedule;
use crate::{Locations, StoreError, location};

/// Most questions of one index.
const MOST_QUESTIONS: usize = 1000;
/// The longest id of a question: it becomes a part of the ids of jobs.
const MOST_ID_BYTES: usize = 100;

/// The definition of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// The folder: all objects below it are looked at.
    pub prefix: VideoUri,
    /// Globs of names relative to the prefix; `*` crosses slashes. None: all names.
    #[serde(default)]
    pub include: Vec<String>,
    /// Globs of names that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// What is asked about each object.
    pub questions: Vec<IndexQuestion>,
    /// When it is listed: five fields of cron, UTC. None: when somebody asks for it.
    #[serde(default)]
    pub schedule: Option<String>,
    /// Objects in archive classes are restored first, for so many days; else they are skipped.
    #[serde(default)]
    pub restore_days: Option<u32>,
    /// How fast they are restored.
    #[serde(default)]
    pub restore_tier: RestoreTier,
    /// An S3 Inventory of the bucket that is read in place of listing it: its `manifest.json`, or the folder that holds
    /// one dated folder per report (then the newest).
    #[serde(default)]
    pub inventory: Option<VideoUri>,
    /// Where its batch's results go.
    #[serde(default)]
    pub results: Option<VideoUri>,
}

/// How fast S3 restores, and at which price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestoreTier {
    /// Hours, the cheapest.
    #[default]
    Bulk,
    /// A few hours.
    Standard,
    /// Minutes; not for Deep Archive.
    Expedited,
}

impl RestoreTier {
    /// The word of S3.
    pub(super) fn of_s3(self) -> &'static str {
        match self {
            Self::Bulk => "Bulk",
            Self::Standard => "Standard",
            Self::Expedited => "Expedited",
        }
    }
}

impl FromStr for RestoreTier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(text.into())
            .map_err(|_| format!("unknown tier {text:?}: use bulk, standard or expedited"))
    }
}

/// A question of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IndexQuestion {
    /// Leads the ids of its jobs.
    pub id: String,
    /// The question.
    pub question: Question,
    /// How it is answered.
    pub plan: Plan,
    /// Of its jobs.
    #[serde(default)]
    pub priority: i32,
}

/// A line of a file of questions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionText {
    id: Option<String>,
    question: String,
    #[serde(default)]
    choices: Vec<String>,
    plan: Option<String>,
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    priority: i32,
}

/// Reads questions, one JSON object `{"id"?,"question","choices"?,"plan"?,"set"?,"priority"?}` per line. Without an id
/// a question is named by a hash of its content.
///
/// # Errors
/// [`StoreError::Invalid`] with the line's number.
pub fn read_questions(text: &str, defaults: &PlanDefaults<'_>) -> Result<Vec<IndexQuestion>, StoreError> {
    let mut questions = Vec::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let question = read_question(text, defaults)
            .map_err(|cause| StoreError::Invalid(format!("line {line} of the questions: {cause}")))?;
        questions.push(question);
    }
    Ok(questions)
}

fn read_question(text: &str, defaults: &PlanDefaults<'_>) -> Result<IndexQuestion, String> {
    let read: QuestionText = serde_json::from_str(text.trim())
        .map_err(|cause| format!("not one JSON object {{\"question\", …}}: {cause}"))?;
    let question = Question::new(read.question, read.choices).map_err(|cause| cause.to_string())?;
    let plan = Plan::named(read.plan.as_deref().unwrap_or(defaults.plan))
        .and_then(|plan| plan.set_all(defaults.set.iter().map(String::as_str)))
        .and_then(|plan| plan.set_object(&read.set))
        .map_err(|cause| cause.to_string())?;
    let id = match read.id {
        Some(id) => id,
        None => {
            let content = serde_json::json!([question, plan]).to_string();
            format!("q-{}", &blake3::hash(content.as_bytes()).to_hex()[..8])
        }
    };
    Ok(IndexQuestion { id, question, plan, priority: read.priority })
}

impl IndexSpec {
    /// Checks everything that can be known without listing.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Location`].
    pub fn check(&self, locations: &Locations) -> Result<(), StoreError> {
        let invalid = |text: String| Err(StoreError::Invalid(text));
        location::folder_key(&self.prefix)?;
        locations.check_folder(&self.prefix)?;
        self.names()?;
        if self.questions.is_empty() || self.questions.len() > MOST_QUESTIONS {
            return invalid(format!("an index asks 1 to {MOST_QUESTIONS} questions"));
        }
        let mut ids = HashSet::new();
        for IndexQuestion { id, .. } in &self.questions {
            if id.trim().is_empty() || id.len() > MOST_ID_BYTES || id.chars().any(char::is_control) {
                return invalid(format!(
                    "question id {id:?} must have 1 to {MOST_ID_BYTES} bytes on one line"
                ));
            }
            if !ids.insert(id) {
                return invalid(format!("two questions have the id {id:?}"));
            }
        }
        if let Some(schedule) = &self.schedule {
            check_schedule(schedule)?;
        }
        if self.restore_days == Some(0) {
            return invalid("restored objects must stay for at least one day".to_owned());
        }
        if let Some(results) = &self.results {
            locations.check_folder(results)?;
        }
        if let Some(inventory) = &self.inventory {
            locations.check_folder(inventory)?;
            if !self.prefix.expose().starts_with("s3") || !inventory.expose().starts_with("s3") {
                return invalid("an inventory belongs to an s3:// prefix and lies in s3://".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn names(&self) -> Result<Names, StoreError> {
        Ok(Names {
            include: (!self.include.is_empty()).then(|| globs(&self.include)).transpose()?,
            exclude: globs(&self.exclude)?,
        })
    }
}

/// Which names belong to an index.
#[derive(Clone, Debug)]
pub(super) struct Names {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Names {
    pub(super) fn wants(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|globs| globs.is_match(name)) && !self.exclude.is_match(name)
    }
}

fn globs(texts: &[String]) -> Result<GlobSet, StoreError> {
    let invalid = |cause: globset::Error| StoreError::Invalid(format!("name pattern: {cause}"));
    let mut set = GlobSetBuilder::new();
    for text in texts {
        set.add(Glob::new(text).map_err(invalid)?);
    }
    set.build().map_err(invalid)
}

impl fmt::Display for RestoreTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of_s3().to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: PlanDefaults<'static> = PlanDefaults { plan: "demo", set: &[] };

    fn spec() -> IndexSpec {
        IndexSpec {
            prefix: VideoUri::parse("s3://b/in/").unwrap(),
            include: vec!["*.mp4".into()],
            exclude: vec!["tmp/**".into(), "*.part.mp4".into()],
            questions: read_questions("{\"question\":\"What?\"}", &DEFAULTS).unwrap(),
            schedule: None,
            restore_days: None,
            restore_tier: RestoreTier::Bulk,
            inventory: None,
            results: None,
        }
    }

    #[test]
    fn names_are_matched_at_any_depth() {
        let names = spec().names().unwrap();
        for name in ["a.mp4", "x/y/a.mp4", "ü b.mp4"] {
            assert!(names.wants(name), "{name}");
        }
        for name in ["a.mov", "tmp/a.mp4", "tmp/x/a.mp4", "x/a.part.mp4", "a.MP4"] {
            assert!(!names.wants(name), "{name}");
        }
        let all = IndexSpec { include: vec![], exclude: vec![], ..spec() };
        assert!(all.names().unwrap().wants("anything"));
    }

    #[test]
    fn questions_are_read_line_by_line() {
        let text = "{\"id\":\"colour\",\"question\":\"Which?\",\"choices\":[\"x\",\"y\"],\"set\":{\"seed\":9},\
                    \"priority\":3}\n\n{\"question\":\"What?\",\"plan\":\"paper16\"}\n";
        let read = read_questions(text, &DEFAULTS).unwrap();
        assert_eq!((read[0].id.as_str(), read[0].priority, read[0].plan.settings.seed), ("colour", 3, 9));
        assert!(read[1].id.starts_with("q-") && read[1].plan.name == "paper16", "{read:?}");
        assert_eq!(read_questions(text, &DEFAULTS).unwrap(), read, "the same content has the same id");
        for (bad, says) in [
            ("{\"question\":\"\"}", "line 1"),
            ("{\"question\":\"Q\"}\nWhat?", "line 2"),
            ("{\"question\":\"Q\",\"video\":\"x\"}", "unknown field `video`"),
            ("{\"question\":\"Q\",\"plan\":\"none\"}", "none"),
        ] {
            let error = read_questions(bad, &DEFAULTS).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_when_it_is_made() {
        let locations = Locations::default();
        spec().check(&locations).unwrap();
        let uri = |text: &str| VideoUri::parse(text).unwrap();
        let twice = [spec().questions, spec().questions].concat();
        let nameless = vec![IndexQuestion { id: " ".into(), ..spec().questions.remove(0) }];
        for bad in [
            IndexSpec { prefix: uri("https://h/x/"), ..spec() },
            IndexSpec { include: vec!["a{".into()], ..spec() },
            IndexSpec { questions: vec![], ..spec() },
            IndexSpec { questions: twice, ..spec() },
            IndexSpec { questions: nameless, ..spec() },
            IndexSpec { schedule: Some("every day".into()), ..spec() },
            IndexSpec { restore_days: Some(0), ..spec() },
            IndexSpec { inventory: Some(uri("/x/manifest.json")), ..spec() },
        ] {
            assert!(bad.check(&locations).is_err(), "{bad:?}");
        }
        let server = Locations::default().allow(crate::AllowList::parse(["s3://b/in"]).unwrap());
        spec().check(&server).unwrap();
        for bad in [
            IndexSpec { prefix: uri("s3://b"), ..spec() },
            IndexSpec { prefix: uri("/etc"), ..spec() },
            IndexSpec { results: Some(uri("s3://other/x")), ..spec() },
            IndexSpec { inventory: Some(uri("s3://other/x")), ..spec() },
        ] {
            assert!(matches!(bad.check(&server), Err(StoreError::Location(_))), "{bad:?}");
        }
    }
}
