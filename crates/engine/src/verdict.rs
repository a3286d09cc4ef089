//! What the loop makes of a target's output: an answer, a segment, or nothing that it can use. The whole policy for
//! malformed outputs is the table in `docs/engine-policy.md`.

use std::ops::Range;

use spectemp_types::{Fallback, Question, TimeSpan, Verdict};

use crate::{
    ChoicesAs, Generation, LabelKind,
    choice::{mean_probability, most_probable, probabilities},
    numbers::numbers,
    parse::{Reply, parse},
    sampling::recorded,
};

/// What the times in an output are measured by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock<'a> {
    /// What the prompt shows as times.
    pub(crate) labels: LabelKind,
    /// Times of the frames of the conversation, in order.
    pub(crate) shown_s: &'a [f64],
    /// The video's length.
    pub(crate) duration_s: f64,
    /// The video's length as the prompt shows it: a segment may reach to it.
    pub(crate) limit_s: f64,
    /// What a single moment is widened by on either side.
    pub(crate) step_s: f64,
}

/// What an output is good for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// The loop can go on with it.
    Usable(Verdict),
    /// A segment that holds nothing of the video, or no times at all.
    UselessSegment,
    /// An answer that is none of the options.
    NoOption,
    /// Nothing that belongs here.
    Unreadable,
}

/// The rules of one turn.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub(crate) question: &'a Question,
    pub(crate) choices_as: ChoicesAs,
    pub(crate) clock: Clock<'a>,
}

impl Judge<'_> {
    /// Reads an output; where `demanded`, only an answer will do.
    pub(crate) fn read(&self, generation: &Generation, demanded: bool) -> (Reading, Vec<Fallback>) {
        let reply = parse(&generation.text);
        let mut fallbacks = reply.flaws.clone();
        let whole = |range: &Range<usize>| !reply.is_cut(range, generation.finish);
        if let Some(range) = reply.answer.as_ref().filter(|range| whole(range)) {
            if reply.segment.is_some() {
                fallbacks.push(Fallback::AnswerOverSegment);
            }
            let reading = self.answer(generation, range).map_or(Reading::NoOption, Reading::Usable);
            return (reading, fallbacks);
        }
        let segment = reply.segment.clone().filter(|range| !demanded && whole(range));
        let Some(range) = segment else {
            return (Reading::Unreadable, fallbacks);
        };
        match self.clock.span(&generation.text[range]) {
            Some((span, more)) => {
                fallbacks.extend(more);
                (Reading::Usable(Verdict::Segment { span }), fallbacks)
            }
            None => (Reading::UselessSegment, fallbacks),
        }
    }

    /// The answer in `range`; none where it is no option.
    fn answer(&self, generation: &Generation, range: &Range<usize>) -> Option<Verdict> {
        let text = &generation.text[range.clone()];
        if self.question.choices.is_empty() {
            let confidence = recorded(mean_probability(&generation.tokens, range));
            return Some(Verdict::Answer { text: text.to_owned(), choice: None, confidence });
        }
        let option = self.choices_as.matching(text, &self.question.choices)?;
        Some(self.option(option, generation))
    }

    fn option(&self, option: usize, generation: &Generation) -> Verdict {
        let options = &self.question.choices;
        let confidence = recorded(probabilities(generation.scores.as_deref(), options.len())[option]);
        Verdict::Answer { text: options[option].clone(), choice: Some(Question::letter(option)), confidence }
    }

    /// An answer from an output that carries none that can be read: the last resort of a final turn.
    pub(crate) fn force(&self, generation: &Generation) -> (Verdict, Vec<Fallback>) {
        let reply = parse(&generation.text);
        let range = reply.answer.clone().or_else(|| untagged(&reply));
        if let Some(verdict) = range.and_then(|range| self.answer(generation, &range)) {
            // One in its tag was cut off.
            let untagged = reply.answer.is_none().then_some(Fallback::UntaggedAnswer);
            return (verdict, untagged.into_iter().collect());
        }
        if self.question.choices.is_empty() {
            let nothing = Verdict::Answer { text: String::new(), choice: None, confidence: 0.0 };
            return (nothing, vec![Fallback::UntaggedAnswer]);
        }
        let likely = probabilities(generation.scores.as_deref(), self.question.choices.len());
        (self.option(most_probable(&likely), generation), vec![Fallback::MostProbableOption])
    }
}

/// What may be an answer without its tag: the text outside of all tags, else the thought.
fn untagged(reply: &Reply) -> Option<Range<usize>> {
    reply.plain.clone().or_else(|| reply.think.clone())
}

impl Clock<'_> {
    /// The segment that a text names: its first two numbers.
    pub(crate) fn span(&self, text: &str) -> Option<(TimeSpan, Vec<Fallback>)> {
        let times = numbers(text);
        let first = *times.first()?;
        let (span, mut fallbacks) = self.clamped(first, times.get(1).copied().unwrap_or(first))?;
        if times.len() > 2 {
            fallbacks.insert(0, Fallback::ExtraTimes);
        }
        Some((span, fallbacks))
    }

    /// All intervals that a text names, two numbers each; none where it names none of the video.
    pub(crate) fn spans(&self, text: &str) -> Vec<TimeSpan> {
        let times = numbers(text);
        times.chunks_exact(2).filter_map(|pair| Some(self.clamped(pair[0], pair[1])?.0)).collect()
    }

    fn clamped(&self, start: f64, end: f64) -> Option<(TimeSpan, Vec<Fallback>)> {
        let mut fallbacks = Vec::new();
        let mut start = self.labels.seconds(start, self.shown_s, self.duration_s);
        let mut end = self.labels.seconds(end, self.shown_s, self.duration_s);
        if start > end {
            fallbacks.push(Fallback::SegmentReversed);
            (start, end) = (end, start);
        }
        if start == end && (0.0..=self.limit_s).contains(&start) {
            fallbacks.push(Fallback::SegmentWidened);
            (start, end) = ((start - self.step_s).max(0.0), (end + self.step_s).min(self.limit_s));
        }
        if start < 0.0 || end > self.limit_s {
            fallbacks.push(Fallback::SegmentClamped);
        }
        let span = TimeSpan::new(recorded(start), recorded(end))?.clamped(self.duration_s)?;
        Some((span, fallbacks))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spectemp_types::{StageTimes, TokenCounts, TurnFinish};

    use super::*;
    use crate::TokenRecord;

    const CLOCK: Clock<'static> = Clock {
        labels: LabelKind::WholeSeconds,
        shown_s: &[5.0, 50.0],
        duration_s: 99.6,
        limit_s: 100.0,
        step_s: 1.0,
    };

    fn spoken(text: &str, scores: Option<Vec<f64>>) -> Generation {
        let token = |end| TokenRecord { id: Some(7), logprob: -1.0, text_end: end };
        Generation {
            text: text.to_owned(),
            tokens: (1..=text.len()).map(token).collect(),
            finish: TurnFinish::EndOfTurn,
            counts: TokenCounts::default(),
            times: StageTimes::default(),
            scores,
        }
    }

    fn read(text: &str, demanded: bool) -> (Reading, Vec<Fallback>) {
        let question = Question::new("q", Vec::new()).unwrap();
        Judge { question: &question, choices_as: ChoicesAs::Letters, clock: CLOCK }
            .read(&spoken(text, None), demanded)
    }

    fn span(text: &str) -> Option<((f64, f64), Vec<Fallback>)> {
        CLOCK.span(text).map(|(span, fallbacks)| ((span.start_s, span.end_s), fallbacks))
    }

    #[test]
    fn segments() {
        assert_eq!(span("(38, 48.5)"), Some(((38.0, 48.5), vec![])));
        assert_eq!(span("90, 100"), Some(((90.0, 99.6), vec![])));
        assert_eq!(span("(90, 120)"), Some(((90.0, 99.6), vec![Fallback::SegmentClamped])));
        assert_eq!(span("(-3, 5)"), Some(((0.0, 5.0), vec![Fallback::SegmentClamped])));
        assert_eq!(span("(48, 38)"), Some(((38.0, 48.0), vec![Fallback::SegmentReversed])));
        assert_eq!(span("(48)"), Some(((47.0, 49.0), vec![Fallback::SegmentWidened])));
        assert_eq!(span("(0, 0)"), Some(((0.0, 1.0), vec![Fallback::SegmentWidened])));
        assert_eq!(span("(1, 2), (3, 4)"), Some(((1.0, 2.0), vec![Fallback::ExtraTimes])));
        assert_eq!(span("(00:10, 1:05)"), Some(((10.0, 65.0), vec![])));
        for useless in ["(120, 140)", "the middle", "", "(-9, -3)"] {
            assert_eq!(span(useless), None, "{useless}");
        }
        assert_eq!(CLOCK.spans("[(5.2, 10.4), (300, 301), (20, 30)]").len(), 2);
    }

    #[test]
    fn what_belongs_to_a_turn() {
        let segment = "<think>a</think><segment>(3, 9)</segment>";
        assert!(matches!(read(segment, false).0, Reading::Usable(Verdict::Segment { .. })));
        assert_eq!(read(segment, true).0, Reading::Unreadable);
        assert_eq!(read("<segment>later</segment>", false).0, Reading::UselessSegment);
        assert_eq!(read("dunno", false).0, Reading::Unreadable);
        let (reading, fallbacks) = read("<answer>7</answer><segment>(3, 9)</segment>", false);
        assert!(matches!(reading, Reading::Usable(Verdict::Answer { .. })));
        assert_eq!(fallbacks, [Fallback::AnswerOverSegment]);
    }

    #[test]
    fn what_was_cut_off_is_not_believed() {
        let question = Question::new("q", Vec::new()).unwrap();
        let judge = Judge { question: &question, choices_as: ChoicesAs::Letters, clock: CLOCK };
        let cut = |text: &str| Generation { finish: TurnFinish::Length, ..spoken(text, None) };
        for text in ["<segment>(38, 4", "<answer>seven hund"] {
            assert_eq!(
                judge.read(&cut(text), false),
                (Reading::Unreadable, vec![Fallback::TagUnclosed]),
                "{text}"
            );
            assert!(matches!(judge.read(&spoken(text, None), false).0, Reading::Usable(_)));
        }
        let (verdict, fallbacks) = judge.force(&cut("<answer>seven hund"));
        assert!(matches!(verdict, Verdict::Answer { text, .. } if text == "seven hund"));
        assert_eq!(fallbacks, []);
    }

    #[test]
    fn options_and_their_probabilities() {
        let question = Question::new("q", vec!["cat".into(), "dog".into()]).unwrap();
        let judge = Judge { question: &question, choices_as: ChoicesAs::Letters, clock: CLOCK };
        let scores = Some(vec![0.2f64.ln(), 0.6f64.ln()]);
        let (reading, _) = judge.read(&spoken("<answer>A</answer>", scores.clone()), false);
        let Reading::Usable(Verdict::Answer { text, choice, confidence }) = reading else { unreachable!() };
        assert_eq!((text.as_str(), choice), ("cat", Some('A')));
        assert!((confidence - 0.25).abs() < 1e-6);
        let odd = spoken("<answer>bird</answer>", scores.clone());
        assert_eq!(judge.read(&odd, false).0, Reading::NoOption);
        let (verdict, fallbacks) = judge.force(&odd);
        assert!(matches!(verdict, Verdict::Answer { choice: Some('B'), .. }));
        assert_eq!(fallbacks, [Fallback::MostProbableOption]);
        let (verdict, fallbacks) = judge.force(&spoken("A", scores));
        assert!(matches!(verdict, Verdict::Answer { choice: Some('A'), .. }));
        assert_eq!(fallbacks, [Fallback::UntaggedAnswer]);
    }

    #[test]
    fn open_confidence_is_that_of_the_answers_tokens() {
        let (reading, _) = read("<answer> seven </answer>", true);
        let Reading::Usable(Verdict::Answer { text, confidence, .. }) = reading else { unreachable!() };
        assert_eq!(text, "seven");
        assert!((confidence - (-1.0f64).exp()).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn segments_lie_in_the_video(text in "[-0-9:., ()]{0,40}") {
            if let Some((span, _)) = CLOCK.span(&text) {
                prop_assert!(0.0 <= span.start_s && span.start_s < span.end_s && span.end_s <= CLOCK.duration_s);
            }
        }

        #[test]
        fn an_answer_can_always_be_forced(text in any::<String>(), choices in prop::collection::vec("[a-c]{1,3}", 2..4)) {
            prop_assume!(Question::new("q", choices.clone()).is_ok());
            for question in [Question::new("q", choices).unwrap(), Question::new("q", Vec::new()).unwrap()] {
                let judge = Judge { question: &question, choices_as: ChoicesAs::Texts, clock: CLOCK };
                let (Verdict::Answer { confidence, .. }, fallbacks) = judge.force(&spoken(&text, None)) else { unreachable!() };
                prop_assert!((0.0..=1.0).contains(&confidence));
                prop_assert!(!fallbacks.is_empty() || parse(&text).answer.is_some());
            }
        }
    }
}
