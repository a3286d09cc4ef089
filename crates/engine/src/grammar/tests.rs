use proptest::prelude::*;

use super::*;
use crate::testing::admitted;

fn whole(pattern: &Pattern) -> regex::Regex {
    regex::Regex::new(&format!("^({})$", pattern.regex())).unwrap()
}

fn times() -> Times {
    Times { first: Decimal { units: 642, decimals: 1 }, second: Decimal { units: 643, decimals: 1 } }
}

fn grammars() -> Vec<Grammar> {
    let options = ["A", "a (b) [c] {d} | \\ / . ^$ * + ?", "\"quoted\"\nline", "日本"];
    let options = AnswerForm::Options(options.map(str::to_owned).to_vec());
    let labels = vec!["390".to_owned(), "391.5".to_owned()];
    let endings = [
        vec![Ending::Answer(AnswerForm::Free), Ending::Segment(times())],
        vec![Ending::Answer(options)],
        vec![Ending::Frames { labels, most: 2 }],
        vec![Ending::AnswerAndGlue { answer: AnswerForm::Free, times: times(), most: 3 }],
    ];
    endings.map(|endings| Grammar { endings }).to_vec()
}

#[test]
fn decimals_around_a_bound() {
    assert_eq!(Decimal::at_most(64.3, 1), Decimal { units: 643, decimals: 1 });
    assert_eq!(Decimal::below(64.3, 1).value(), 64.2);
    assert_eq!(Decimal::below(64.26, 1).value(), 64.2);
    assert_eq!(Decimal::below(64.0, 0).value(), 63.0);
    assert_eq!(Decimal::below(0.04, 1).value(), 0.0);
    assert_eq!(Decimal::at_most(-1.0, 2).value(), 0.0);
}

#[test]
fn numbers_end_at_their_bound() {
    for (units, decimals) in
        [(0, 0), (7, 0), (10, 0), (60, 0), (305, 0), (1099, 0), (0, 1), (3, 1), (643, 1), (6_425, 2)]
    {
        let bound = Decimal { units, decimals };
        let pattern = whole(&bound.up_to());
        let scale = 10_u64.pow(decimals);
        for unit in 0..=units + 2 * scale + 20 {
            for places in 0..=decimals + 1 {
                let (step, value) = (10_u64.pow(decimals.saturating_sub(places)), unit as f64 / scale as f64);
                let text = format!("{value:.*}", places as usize);
                let fits = unit <= units && places <= decimals;
                // What rounding would make another number is skipped.
                if unit.is_multiple_of(step) {
                    assert_eq!(pattern.is_match(&text), fits, "{text} up to {bound:?}");
                }
            }
        }
        for text in ["", "00", "01", "-1", ".5", "1.", "1e3"] {
            assert!(!pattern.is_match(text), "{text} up to {bound:?}");
        }
    }
}

#[test]
fn what_does_not_belong_is_not_admitted() {
    let [open, options, frames, _] = grammars().try_into().unwrap();
    let refused = [
        (&open, "<answer>7</answer>"),
        (&open, "<think>a<answer>7</answer></think><answer>7</answer>"),
        (&open, "<think>a</think>\n<answer>7</answer>"),
        (&open, "<think>a</think><answer></answer>"),
        (&open, "<think>a</think><answer> 7</answer>"),
        (&open, "<think>a</think><answer>\u{3000}</answer>"),
        (&open, "<think>a\0</think><answer>7</answer>"),
        (&open, "<think>a</think><segment>(1, 65)</segment>"),
        (&open, "<think>a</think><segment>(64.3, 64.3)</segment>"),
        (&open, "<think>a</think><segment>(1, 2.25)</segment>"),
        (&options, "<think>a</think><answer>B</answer>"),
        (&frames, "<think>a</think><frame>[391]</frame>"),
        (&frames, "<think>a</think><frame>[]</frame>"),
        (&frames, "<think>a</think><frame>[390, 391.5, 390]</frame>"),
    ];
    for (grammar, text) in refused {
        assert!(!whole(&grammar.pattern(None)).is_match(text), "{text}");
    }
    let long = format!("<think>{}</think><answer>7</answer>", "a".repeat(41));
    assert!(whole(&open.pattern(None)).is_match(&long));
    assert!(!whole(&open.pattern(Some(40))).is_match(&long));
}

#[test]
fn the_demonstrations_turns_are_admitted() {
    let times =
        Times { first: Decimal { units: 299, decimals: 0 }, second: Decimal { units: 300, decimals: 0 } };
    let target = Grammar { endings: vec![Ending::Answer(AnswerForm::Free), Ending::Segment(times)] };
    for text in [
        "<think> cyan at 195</think><segment>(165, 225)</segment>",
        "<think> digit 0</think><answer>0</answer>",
    ] {
        assert!(whole(&target.pattern(None)).is_match(text), "{text}");
    }
    assert_eq!(target.stops(), ["</answer>", "</segment>"]);
}

#[test]
fn gbnf_of_a_turn() {
    let grammar =
        Grammar { endings: vec![Ending::Frames { labels: vec!["3".into(), "\"\\".into()], most: 2 }] };
    let expected = concat!(
        r#""<think>" ([^<\x00-\x08\x0b-\x1f\x7f]){0,9} "</think>" ("<frame>[" "#,
        r#"("3" | "\"\\") (", " ("3" | "\"\\")){0,1} "]</frame>")"#
    );
    assert_eq!(grammar.pattern(Some(9)).gbnf(), expected);
}

#[test]
fn the_longest_text_is_known_where_there_is_one() {
    let [open, options, frames, _] = grammars().try_into().unwrap();
    let longest =
        |grammar: &Grammar, ending: usize| Pattern::Sequence(grammar.endings[ending].pieces()).longest();
    assert_eq!(longest(&open, 0), None);
    assert_eq!(longest(&open, 1), Some("<segment>(64.2, 64.3)</segment>".len()));
    assert_eq!(longest(&frames, 0), Some("<frame>[391.5, 391.5]</frame>".len()));
    assert!(longest(&options, 0) > Some(40));
}

proptest! {
    #[test]
    fn the_regular_expression_admits_what_the_pattern_does(seed in any::<u64>()) {
        for grammar in grammars() {
            let text = admitted(&grammar.pattern(None), seed);
            prop_assert!(whole(&grammar.pattern(None)).is_match(&text), "{}", text);
            prop_assert!(grammar.stops().iter().any(|stop| text.ends_with(stop)));
        }
    }
}
