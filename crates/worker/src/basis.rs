//! What the rounds of a job rest on: the video's version, the models and their prompts. The ledger keeps it beside the
//! rounds, and rounds that rest on something else are dropped: two kinds of rounds never make one answer.

use serde::{Deserialize, Serialize};
use spectemp_engine::{ModelCard, prompt::prompt_revision};
use spectemp_types::{TraceVideo, TurnRole};

/// What a job's rounds rest on. Where a model lies is no part of it: the same weights in another folder are the same.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Basis {
    etag: Option<String>,
    bytes: u64,
    target: ModelBasis,
    draft: Option<ModelBasis>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ModelBasis {
    revision: String,
    prompts: String,
}

impl Basis {
    /// What rounds rest on that are made now; `draft` where the strategy asks one.
    pub(crate) fn new(video: &TraceVideo, target: &ModelCard, draft: Option<&ModelCard>) -> Self {
        let model = |card: &ModelCard, role| ModelBasis {
            revision: card.revision.revision.clone(),
            prompts: prompt_revision(card, role),
        };
        Self {
            etag: video.etag.clone(),
            bytes: video.bytes,
            target: model(target, TurnRole::Target),
            draft: draft.map(|card| model(card, TurnRole::Draft)),
        }
    }

    /// The text that the ledger compares.
    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// What of it is not as in `earlier`, for people.
    pub(crate) fn change_from(&self, earlier: &str) -> String {
        let Ok(earlier) = serde_json::from_str::<Self>(earlier) else {
            return "what they were made with is not known".to_owned();
        };
        let mut changes = Vec::new();
        if (&self.etag, self.bytes) != (&earlier.etag, earlier.bytes) {
            changes.push("the video has changed".to_owned());
        }
        changes.extend(model_change("target", Some(&earlier.target), Some(&self.target)));
        changes.extend(model_change("draft", earlier.draft.as_ref(), self.draft.as_ref()));
        changes.join(", ")
    }
}

fn model_change(role: &str, earlier: Option<&ModelBasis>, now: Option<&ModelBasis>) -> Option<String> {
    let revision = |model: Option<&ModelBasis>| model.map_or("none", |model| &model.revision).to_owned();
    let (was, is) = (revision(earlier), revision(now));
    if was != is {
        return Some(format!("the {role} is another model ({is}, before it was {was})"));
    }
    (earlier != now).then(|| format!("the prompts of the {role} have changed"))
}

#[cfg(test)]
mod tests {
    use spectemp_engine::testing::card;

    use super::*;

    fn video() -> TraceVideo {
        let etag = Some("\"1\"".to_owned());
        TraceVideo { uri: "v.mp4".to_owned(), etag, bytes: 7, duration_s: 1.0, width: 1, height: 1 }
    }

    #[test]
    fn a_change_is_told_by_name() {
        let (target, draft) = (card("target"), card("draft"));
        let earlier = Basis::new(&video(), &target, Some(&draft));
        let text = earlier.text().unwrap();
        let told = |basis: &Basis| basis.change_from(&text);

        let mut other = target.clone();
        other.revision.revision = "other".to_owned();
        let now = Basis::new(&TraceVideo { bytes: 8, ..video() }, &other, Some(&draft));
        let target_told = "the target is another model (other, before it was scripted)";
        assert_eq!(told(&now), format!("the video has changed, {target_told}"));

        let mut prompts = draft.clone();
        prompts.templates.draft = Some("{% block first %}{% endblock %}".to_owned());
        assert_eq!(
            told(&Basis::new(&video(), &target, Some(&prompts))),
            "the prompts of the draft have changed"
        );
        let alone = Basis::new(&video(), &target, None);
        assert_eq!(told(&alone), "the draft is another model (none, before it was scripted)");
        assert_eq!(alone.change_from("{\"etag\":null}"), "what they were made with is not known");
    }

    #[test]
    fn where_a_model_lies_and_prompts_that_nobody_asks_with_are_no_part_of_it() {
        let mut moved = card("target");
        moved.revision.name = "/elsewhere".to_owned();
        moved.templates.draft = Some("{% block first %}{% endblock %}".to_owned());
        let basis = |target: &ModelCard| Basis::new(&video(), target, Some(&card("draft"))).text().unwrap();
        assert_eq!(basis(&moved), basis(&card("target")));
    }
}
