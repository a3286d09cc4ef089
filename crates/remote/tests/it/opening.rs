//! Opening: what the server serves, keys, prompts.

use serde_json::json;
use spectemp_engine::{Abilities, PixelBudget, PromptTemplates, Vlm};
use spectemp_remote::{Address, ApiKey, RemoteVlm};

use crate::{
    double::{Double, Manners},
    support::{address, open, refused},
};

fn serving(models: serde_json::Value) -> Manners {
    Manners { models: Ok(models), ..Manners::default() }
}

#[tokio::test]
async fn the_card_says_what_the_server_is_and_can() {
    let list = json!({ "object": "list", "data": [{
        "id": "qwen", "object": "model", "created": 5, "owned_by": "vllm", "root": "/models/qwen",
        "parent": null, "max_model_len": 32768, "permission": [],
    }]});
    let double = Double::start(serving(list), vec![]).await;
    let vlm = open(&double, "openai", "multiple=32&min_pixels=1024").await;
    let card = vlm.card();
    assert_eq!(card.revision.name, format!("openai+{}?multiple=32&min_pixels=1024#qwen", double.base));
    assert_eq!(card.revision.revision, "vllm qwen owned_by=vllm root=/models/qwen max_model_len=32768");
    assert_eq!(card.pixels, PixelBudget { min_pixels: 1024, max_pixels: 12_845_056, multiple: 32 });
    assert_eq!(card.context_tokens, 32_768);
    assert_eq!(card.abilities, Abilities { constraint: true, probabilities: true, seeds: true });

    let plain = open(&double, "plain", "logprobs=off").await;
    assert_eq!(plain.card().abilities, Abilities { constraint: false, probabilities: false, seeds: true });
}

#[tokio::test]
async fn a_model_that_is_not_served_is_told_at_once_where_the_list_is_sure() {
    let list = json!({ "data": [{ "id": "other", "owned_by": "vllm" }] });
    let double = Double::start(serving(list), vec![]).await;
    let error = refused(&address(&double, "openai", ""), None).await.to_string();
    assert!(
        error.contains(&double.base) && error.contains("qwen") && error.contains("it offers other"),
        "{error}"
    );

    let unlisted = Manners { models: Err(404), ..Manners::default() };
    let double = Double::start(unlisted, vec![]).await;
    let vlm = open(&double, "openai", "").await;
    assert_eq!(vlm.card().revision.revision, "plain qwen not listed");
}

#[tokio::test]
async fn keys_are_sent_and_never_shown() {
    let locked = || Manners { key: Some("sk-right"), ..Manners::default() };
    let double = Double::start(locked(), vec![]).await;
    let address = address(&double, "openai", "");
    let key = ApiKey::new("sk-right").unwrap();
    assert!(RemoteVlm::open(&address, Some(key)).await.is_ok());

    let error = refused(&address, Some("sk-wrong")).await;
    let said = format!("{error} {error:?}");
    assert!(said.contains("401") && said.contains("check SPECTEMP_TARGET_API_KEY"), "{said}");
    assert!(!said.contains("sk-wrong"), "{said}");
    let error = refused(&address, None).await.to_string();
    assert!(error.contains("it wants a key: set SPECTEMP_TARGET_API_KEY"), "{error}");
}

#[tokio::test]
async fn prompts_come_from_a_folder() {
    let double = Double::start(Manners::default(), vec![]).await;
    let folder = tempfile::tempdir().unwrap();
    let query = format!("prompts={}", folder.path().display());
    let error = refused(&address(&double, "plain", &query), None).await.to_string();
    assert!(error.contains(folder.path().to_str().unwrap()) && error.contains("target.jinja"), "{error}");

    std::fs::write(folder.path().join("target.jinja"), "{% block first %}{% endblock %}").unwrap();
    let vlm = open(&double, "plain", &query).await;
    let expected =
        PromptTemplates { target: Some("{% block first %}{% endblock %}".to_owned()), draft: None };
    assert_eq!(vlm.card().templates, expected);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    // A port that was free a moment ago.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let address: Address = format!("vllm+{base}?retries=1#qwen").parse().unwrap();
    let error = refused(&address, None).await.to_string();
    assert!(
        error.contains(&base) && error.contains("cannot be reached") && error.ends_with("tries: 2"),
        "{error}"
    );
}
