//! The same crate against a real server, which `SPECTEMP_TEST_SERVER` names by its address:
//!
//!     SPECTEMP_TEST_SERVER=llamacpp+http://127.0.0.1:8080/v1 cargo nextest run -p spectemp-remote --run-ignored only

use regex::Regex;
use spectemp_engine::{
    AnswerForm, Decimal, Ending, Generation, Grammar, Request, Sampling, Score, Times, Vlm, VlmError,
};
use spectemp_remote::{Address, ApiKey, RemoteVlm};
use spectemp_types::TurnFinish;

use crate::support::request;

async fn server() -> RemoteVlm {
    let text = std::env::var("SPECTEMP_TEST_SERVER").expect("SPECTEMP_TEST_SERVER names a server's address");
    let address: Address = text.parse().unwrap();
    let key = std::env::var("SPECTEMP_TARGET_API_KEY").ok().map(|key| ApiKey::new(&key).unwrap());
    RemoteVlm::open(&address, key).await.unwrap()
}

async fn generate(vlm: &RemoteVlm, request: Request) -> Generation {
    vlm.generate(request).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a real server: SPECTEMP_TEST_SERVER"]
async fn greedy_turns_repeat_themselves_and_are_counted() {
    let vlm = server().await;
    let (first, second) = (generate(&vlm, request()).await, generate(&vlm, request()).await);
    assert_eq!(first.text, second.text);
    assert_eq!(first.counts.visual, 2);
    assert!(first.counts.text > 4 && first.counts.generated > 0, "{:?}", first.counts);
    if vlm.card().abilities.probabilities {
        let ends: Vec<usize> = first.tokens.iter().map(|token| token.text_end).collect();
        // A stop string that the server leaves out has no tokens.
        let covered = first.text.len() - "</answer>".len()..=first.text.len();
        let reached = ends.last().is_some_and(|last| covered.contains(last));
        assert!(ends.is_sorted() && reached, "{ends:?} of {:?}", first.text);
        assert!(first.tokens.iter().all(|token| token.logprob <= 1e-6), "{:?}", first.tokens);
    } else {
        assert!(first.tokens.is_empty());
    }
    let drawn = Request { sampling: Sampling { temperature: 1.0, top_p: 0.95, seed: 3 }, ..request() };
    if vlm.card().abilities.seeds {
        assert_eq!(generate(&vlm, drawn.clone()).await.text, generate(&vlm, drawn).await.text);
    }
}

#[tokio::test]
#[ignore = "needs a real server: SPECTEMP_TEST_SERVER"]
async fn turns_keep_to_their_form_where_the_server_can_hold_them() {
    let vlm = server().await;
    let times =
        Times { first: Decimal { units: 299, decimals: 1 }, second: Decimal { units: 300, decimals: 1 } };
    let options = ["A", "B", "C"].map(str::to_owned).to_vec();
    let answer = Ending::Answer(AnswerForm::Options(options.clone()));
    let cut = Regex::new(r"^<think>[^<]*$").unwrap();
    for endings in [vec![answer.clone()], vec![answer, Ending::Segment(times)]] {
        let grammar = Grammar { endings };
        let held = Request {
            max_new_tokens: 400,
            stops: grammar.stops(),
            score: Some(Score { after: "<answer>".to_owned(), candidates: options.clone() }),
            grammar: Some(grammar.clone()),
            ..request()
        };
        let turn = generate(&vlm, held).await;
        if !vlm.card().abilities.constraint {
            continue;
        }
        let whole = Regex::new(&format!("^({})$", grammar.pattern(None).regex())).unwrap();
        match turn.finish {
            TurnFinish::Length => assert!(cut.is_match(&turn.text), "{:?}", turn.text),
            _ => assert!(whole.is_match(&turn.text), "{:?}", turn.text),
        }
        if turn.text.contains("<answer>") && vlm.card().abilities.probabilities {
            let scores = turn.scores.unwrap();
            assert!(scores.iter().any(|score| score.is_finite()), "{scores:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a real server: SPECTEMP_TEST_SERVER"]
async fn a_context_that_is_too_long_is_refused() {
    let vlm = server().await;
    let mut long = request();
    let words = spectemp_engine::Part::Text("a b c d e f g h ".repeat(40_000));
    long.messages[1].parts.push(words);
    let error = vlm.generate(long).await.unwrap_err();
    assert!(matches!(error, VlmError::Refused(_)), "{error:?}");
}
