//! The model behind [`spectemp_engine::Vlm`]. What a conversation shares with an earlier one is the server's business:
//! every request carries the whole conversation, its images included.

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use spectemp_engine::{Abilities, Generation, ModelCard, PromptTemplates, Request, Vlm, VlmError};
use spectemp_types::ModelRevision;

use crate::{
    Address, ApiKey, RemoteError,
    client::Client,
    generate::Form,
    models::served,
    reply::{Bad, ends_in_thought, generation},
    wire::ChatReply,
};

/// A model on a server.
pub struct RemoteVlm {
    card: ModelCard,
    client: Client,
    form: Form,
}

impl RemoteVlm {
    /// Asks the server what it serves and takes the model of the address. Nothing is generated yet.
    ///
    /// # Errors
    /// A server that cannot be reached, that refuses the key or that does not serve the model; prompts that cannot be
    /// read.
    pub async fn open(address: &Address, key: Option<ApiKey>) -> Result<Self, RemoteError> {
        let templates = templates(address.settings.prompts.as_deref())?;
        let named = address.model.clone().unwrap_or_else(|| "any".to_owned());
        let mut client = Client::new(address.base.clone(), named, key, &address.settings)?;
        let served = served(&client, address).await?;
        client.model.clone_from(&served.model);
        let revision = format!("{} {}", served.dialect.name(), served.revision);
        let card = ModelCard {
            revision: ModelRevision { name: address.to_string(), revision },
            pixels: address.settings.pixels,
            templates,
            context_tokens: served.context_tokens,
            abilities: Abilities {
                constraint: served.dialect.takes_grammars(),
                probabilities: served.dialect.gives_logprobs() && address.settings.top_logprobs > 0,
                seeds: served.dialect.takes_seeds(),
            },
        };
        let form = Form {
            model: served.model,
            dialect: served.dialect,
            settings: address.settings.clone(),
            new_limit: is_openai(client.base()),
        };
        Ok(Self { card, client, form })
    }

    async fn answer(&self, request: Request) -> Result<Generation, VlmError> {
        let request = Arc::new(request);
        let generation = self.turn(&request, true).await?;
        let stops = self.form.dialect.takes_stops() && !request.stops.is_empty();
        if !stops || !ends_in_thought(&generation) {
            return Ok(generation);
        }
        // The server cannot know that a stop string inside a thought is none.
        tracing::debug!("the turn ended inside its thought and is asked for again without stop strings");
        self.turn(&request, false).await
    }

    /// One request to the server.
    async fn turn(&self, request: &Arc<Request>, stops: bool) -> Result<Generation, VlmError> {
        let asked = self.form.asked(request);
        let (form, request) = (self.form.clone(), Arc::clone(request));
        let encoding = tokio::task::spawn_blocking(move || form.body(&request, stops));
        let body = encoding.await.map_err(|cause| VlmError::Backend(cause.to_string()))?;
        let body = body.map_err(VlmError::Request)?;
        let answered = self.client.post("chat/completions", body).await?;
        let reply: ChatReply =
            serde_json::from_slice(&answered.body).map_err(|cause| self.client.unreadable(cause))?;
        let generate_ms = answered.took.as_secs_f64() * 1e3;
        let read = generation(reply, &asked, generate_ms).map_err(|bad| match bad {
            Bad::Broken(cause) => self.client.unreadable(cause),
            Bad::Withheld(cause) => self.client.refused(cause, None),
        });
        Ok(read?)
    }
}

#[async_trait]
impl Vlm for RemoteVlm {
    fn card(&self) -> &ModelCard {
        &self.card
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let cancel = request.cancel.clone();
        tokio::select! {
            biased;
            // The request that is dropped closes its connection, and the server stops.
            () = cancel.cancelled() => Err(VlmError::Cancelled),
            answer = self.answer(request) => answer,
        }
    }
}

/// True for the company's own servers.
fn is_openai(base: &str) -> bool {
    let host = url::Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| host == "api.openai.com" || host.ends_with(".api.openai.com"))
}

/// The prompts of a folder, at least one of them.
fn templates(folder: Option<&Path>) -> Result<PromptTemplates, RemoteError> {
    let Some(folder) = folder else { return Ok(PromptTemplates { target: None, draft: None }) };
    let read = |name: &str| {
        let path = folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(RemoteError::Prompts { path, cause: cause.to_string() }),
        }
    };
    let templates = PromptTemplates { target: read("target.jinja")?, draft: read("draft.jinja")? };
    if templates.target.is_none() && templates.draft.is_none() {
        let cause = "holds neither target.jinja nor draft.jinja".to_owned();
        return Err(RemoteError::Prompts { path: folder.to_owned(), cause });
    }
    Ok(templates)
}
