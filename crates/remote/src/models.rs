//! What a server says that it serves: which model is meant, of which kind the server is, and what goes into the trace.

use crate::{
    Address, Dialect, RemoteError,
    client::Client,
    wire::{ListedModel, ModelList},
};

/// Qwen2.5-VL's own, where nobody tells.
const CONTEXT_TOKENS: u32 = 128_000;

/// A model as a server serves it.
#[derive(Debug, PartialEq)]
pub(crate) struct Served {
    /// Its id.
    pub(crate) model: String,
    pub(crate) dialect: Dialect,
    /// Its id and what the list says of it, for traces: what tells it from other models, on this server or another.
    pub(crate) revision: String,
    pub(crate) context_tokens: u32,
}

/// Asks the server. One without a list is taken at the address's word.
pub(crate) async fn served(client: &Client, address: &Address) -> Result<Served, RemoteError> {
    let list = match client.get("models").await {
        Ok(answered) => {
            let list: ModelList =
                serde_json::from_slice(&answered.body).map_err(|cause| client.unreadable(cause))?;
            Some(list.data)
        }
        Err(RemoteError::Refused { status: Some(404 | 405 | 501), .. }) => None,
        Err(error) => return Err(error),
    };
    choose(list.as_deref(), address).map_err(|cause| client.refused(cause, None))
}

fn choose(list: Option<&[ListedModel]>, address: &Address) -> Result<Served, String> {
    let listed = list.unwrap_or_default();
    let found = match &address.model {
        Some(wanted) => listed.iter().find(|model| model.id == *wanted),
        None => match listed {
            [only] => Some(only),
            _ => return Err(format!("name the model after #: {}", offered(list))),
        },
    };
    let owner = found.or(listed.first()).and_then(|model| model.owned_by.as_deref());
    let dialect = address.dialect.unwrap_or_else(|| owner.map_or(Dialect::Plain, Dialect::of_owner));
    let Some(model) = address.model.clone().or_else(|| found.map(|model| model.id.clone())) else {
        return Err(format!("name the model after #: {}", offered(list)));
    };
    if found.is_none() && dialect.knows_its_models() {
        return Err(format!("it does not serve this model: {}", offered(list)));
    }
    // This one serves what it has loaded, whatever a request calls it.
    let loaded = found.or(listed.first().filter(|_| dialect == Dialect::LlamaCpp));
    let told = found.and_then(|model| model.max_model_len.or_else(|| trained_context(model)));
    Ok(Served {
        revision: format!("{model} {}", loaded.map_or_else(|| "not listed".to_owned(), revision)),
        model,
        dialect,
        context_tokens: address.settings.context_tokens.or(told).unwrap_or(CONTEXT_TOKENS),
    })
}

fn offered(list: Option<&[ListedModel]>) -> String {
    match list {
        None => "it does not list its models".to_owned(),
        Some([]) => "it lists no models".to_owned(),
        Some(list) => {
            let ids: Vec<&str> = list.iter().take(10).map(|model| model.id.as_str()).collect();
            let more = if list.len() > ids.len() { " and others" } else { "" };
            format!("it offers {}{more}", ids.join(", "))
        }
    }
}

/// What does not change while the server runs: `created` is the time of the question on some.
fn revision(model: &ListedModel) -> String {
    let mut facts = Vec::new();
    facts.extend(model.owned_by.as_ref().map(|owner| format!("owned_by={owner}")));
    facts.extend(model.root.as_ref().map(|root| format!("root={root}")));
    facts.extend(model.max_model_len.map(|tokens| format!("max_model_len={tokens}")));
    for name in ["n_params", "size"] {
        let fact = model.meta.as_ref().and_then(|meta| meta.get(name));
        facts.extend(fact.map(|fact| format!("{name}={fact}")));
    }
    if facts.is_empty() { "listed".to_owned() } else { facts.join(" ") }
}

fn trained_context(model: &ListedModel) -> Option<u32> {
    let meta = model.meta.as_ref()?;
    let tokens = meta.get("n_ctx").or_else(|| meta.get("n_ctx_train"))?;
    tokens.as_u64().and_then(|tokens| u32::try_from(tokens).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> Vec<ListedModel> {
        serde_json::from_str(json).unwrap()
    }

    fn chosen(models: &str, address: &str) -> Result<Served, String> {
        choose(Some(&list(models)), &address.parse().unwrap())
    }

    const VLLM: &str =
        r#"[{"id":"q","object":"model","created":1,"owned_by":"vllm","root":"/m/q","max_model_len":4096}]"#;
    const LLAMA: &str =
        r#"[{"id":"q.gguf","owned_by":"llamacpp","meta":{"n_ctx_train":2048,"n_params":7,"size":9}}]"#;

    #[test]
    fn the_list_tells_dialect_revision_and_context() {
        let served = chosen(VLLM, "openai+http://h/v1").unwrap();
        let expected = Served {
            model: "q".to_owned(),
            dialect: Dialect::Vllm,
            revision: "q owned_by=vllm root=/m/q max_model_len=4096".to_owned(),
            context_tokens: 4096,
        };
        assert_eq!(served, expected);
        let served = chosen(LLAMA, "openai+http://h/v1#anything").unwrap();
        assert_eq!((served.model.as_str(), served.dialect), ("anything", Dialect::LlamaCpp));
        assert_eq!(served.revision, "anything owned_by=llamacpp n_params=7 size=9");
        let served = chosen(LLAMA, "openai+http://h/v1").unwrap();
        assert_eq!(
            (served.context_tokens, served.revision.as_str()),
            (2048, "q.gguf owned_by=llamacpp n_params=7 size=9")
        );
    }

    #[test]
    fn an_address_goes_before_what_is_found_out() {
        let served = chosen(VLLM, "plain+http://h/v1?context_tokens=99#q").unwrap();
        assert_eq!((served.dialect, served.context_tokens), (Dialect::Plain, 99));
        let unlisted = choose(None, &"openai+http://h/v1#m".parse().unwrap()).unwrap();
        assert_eq!((unlisted.dialect, unlisted.revision.as_str()), (Dialect::Plain, "m not listed"));
        assert_eq!(unlisted.context_tokens, CONTEXT_TOKENS);
    }

    #[test]
    fn a_model_that_is_not_there_is_told_with_those_that_are() {
        assert!(chosen(VLLM, "openai+http://h/v1#p").unwrap_err().ends_with("it offers q"));
        let two = r#"[{"id":"a"},{"id":"b"}]"#;
        assert!(chosen(two, "openai+http://h/v1").unwrap_err().ends_with("it offers a, b"));
        assert!(chosen("[]", "openai+http://h/v1").unwrap_err().ends_with("it lists no models"));
        assert!(choose(None, &"vllm+http://h/v1".parse().unwrap()).unwrap_err().contains("name the model"));
    }
}
