use proptest::prelude::*;

use super::*;

/// The contents as texts: think, segment, frame, answer.
fn read(text: &str) -> [Option<&str>; 4] {
    let reply = parse(text);
    [reply.think, reply.segment, reply.frame, reply.answer].map(|range| range.map(|range| &text[range]))
}

#[test]
fn well_formed_outputs() {
    let segment = "<think> red at 436</think><segment>(385, 487)</segment>";
    assert_eq!(read(segment), [Some("red at 436"), Some("(385, 487)"), None, None]);
    let answer = "<think> digit 7</think>\n<answer> 7 </answer>";
    assert_eq!(read(answer), [Some("digit 7"), None, None, Some("7")]);
    let frame = "<think> digit at 391</think><frame>[391, 392]</frame>";
    assert_eq!(read(frame), [Some("digit at 391"), None, Some("[391, 392]"), None]);
    for text in [segment, answer, frame] {
        assert!(parse(text).flaws.is_empty(), "{text}");
        assert_eq!(parse(text).plain, None);
    }
}

#[test]
fn spelling_is_tolerated() {
    assert_eq!(read("< Think >a</ THINK><ANSWER>\n B\n</Answer >"), [Some("a"), None, None, Some("B")]);
}

#[test]
fn tags_inside_a_thought_do_not_count() {
    let text = "<think>I could write <answer>3</answer> but no</think><segment>(1, 2)</segment>";
    assert_eq!(read(text), [Some("I could write <answer>3</answer> but no"), Some("(1, 2)"), None, None]);
}

#[test]
fn thoughts_without_an_opening_or_without_tags() {
    assert_eq!(read("red at 4</think><answer>4</answer>"), [Some("red at 4"), None, None, Some("4")]);
    assert_eq!(read("It is four. <answer>4</answer>"), [Some("It is four."), None, None, Some("4")]);
    assert_eq!(parse("just words").plain, Some(0..10));
    assert_eq!(read("just words"), [None; 4]);
}

#[test]
fn unclosed_tags_reach_to_the_next_one() {
    let text = "<think> hm <answer>4";
    assert_eq!(read(text), [Some("hm"), None, None, Some("4")]);
    assert_eq!(parse(text).flaws, [Fallback::TagUnclosed]);
    let range = parse(text).answer.unwrap();
    assert!(parse(text).is_cut(&range, TurnFinish::Length));
    assert!(!parse(text).is_cut(&range, TurnFinish::EndOfTurn));
    assert!(!parse("<answer>4</answer>").is_cut(&(8..9), TurnFinish::Length));
    assert_eq!(read("<segment>(1, 2)<answer>x</answer>"), [None, Some("(1, 2)"), None, Some("x")]);
    assert_eq!(read("<think>a<answer>4</answer><think>b</think>")[3], Some("4"));
}

#[test]
fn of_two_tags_the_last_that_holds_something_counts() {
    let text = "<answer>3</answer><answer>4</answer><answer> </answer>";
    assert_eq!(read(text)[3], Some("4"));
    assert_eq!(parse(text).flaws, [Fallback::TagRepeated]);
}

#[test]
fn empty_tags_are_not_there() {
    assert_eq!(read("<think></think><answer> </answer><segment></segment>"), [None; 4]);
}

proptest! {
    #[test]
    fn never_panics_and_ranges_hold(text in any::<String>(), pieces in prop::collection::vec(piece(), 0..14)) {
        for text in [text, pieces.concat()] {
            let reply = parse(&text);
            let ranges = [reply.think, reply.segment, reply.frame, reply.answer, reply.glue, reply.plain];
            for range in ranges.into_iter().flatten() {
                let content = text.get(range).unwrap();
                prop_assert!(!content.is_empty() && content.trim() == content);
            }
        }
    }

    #[test]
    fn what_is_well_formed_is_read(think in "[^<>]{0,40}", answer in "[^<>]{1,40}") {
        prop_assume!(!answer.trim().is_empty());
        let text = format!("<think>{think}</think><answer>{answer}</answer>");
        prop_assert_eq!(read(&text)[3], Some(answer.trim()));
        prop_assert_eq!(read(&text)[0].unwrap_or_default(), think.trim());
    }
}

fn piece() -> impl Strategy<Value = String> {
    let tags = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<segment>",
        "</segment>",
        "<frame>",
        "</frame>",
        "<answer>",
        "</answer>",
        "<glue>",
        "</glue>",
        "<",
        "</",
        ">",
        "é",
        " ",
        "12:30",
        "(3, 4)",
    ]);
    prop_oneof![tags.prop_map(str::to_owned), "[ -~é]{0,6}"]
}
