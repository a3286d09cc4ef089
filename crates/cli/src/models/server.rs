//! Models on servers: their addresses, and which key goes where.

use std::sync::Arc;

use spectemp_engine::Vlm;
use spectemp_remote::{Address, ApiKey, RemoteVlm};

use super::{DRAFT, TARGET};
use crate::{args::ModelArgs, context::Context, output::Usage};

/// True for what is meant as the address of a model server.
pub(super) fn is_meant(name: &str) -> bool {
    Address::is_meant(name)
}

/// The address that a model's name is; none for a folder, a hub or object storage.
///
/// # Errors
/// One that is wrong.
pub(super) fn address(name: &str) -> anyhow::Result<Option<Address>> {
    if !is_meant(name) {
        return Ok(None);
    }
    let address: Address =
        name.parse().map_err(|cause: spectemp_remote::RemoteError| Usage(cause.to_string()))?;
    Ok(Some(address))
}

/// Fails for the address of a server: it has no files.
pub(crate) fn refuse_files(name: &str) -> anyhow::Result<()> {
    match address(name)? {
        None => Ok(()),
        Some(address) => {
            Err(Usage(format!("{address} is a model on a server: it has no files here to pull or check"))
                .into())
        }
    }
}

/// Asks the server, with the key of the target or of the draft.
pub(super) async fn open(
    address: &Address,
    role: &str,
    args: &ModelArgs,
    context: &Context,
) -> anyhow::Result<Arc<dyn Vlm>> {
    let key = key(address, role, args, context)?;
    Ok(Arc::new(RemoteVlm::open(address, key).await?))
}

/// True where a draft of this name is the target itself: for a server, only under the same key.
pub(super) fn same_key(name: &str, context: &Context) -> bool {
    let draft = own_key(DRAFT, context);
    !is_meant(name) || draft.is_none() || draft == own_key(TARGET, context)
}

/// The role's own key. A draft without one takes the target's where both are served from one place; nowhere else is it
/// ever sent.
fn key(address: &Address, role: &str, args: &ModelArgs, context: &Context) -> anyhow::Result<Option<ApiKey>> {
    let own = own_key(role, context);
    let lent = || {
        let target = context.config.setting(TARGET, args.target.clone()).value?;
        let target: Address = target.parse().ok()?;
        (role == DRAFT && target.same_origin(address)).then(|| own_key(TARGET, context)).flatten()
    };
    let key = own.or_else(lent).map(|key| ApiKey::new(&key)).transpose();
    key.map_err(|cause| Usage(cause.to_string()).into())
}

fn own_key(role: &str, context: &Context) -> Option<String> {
    context.config.setting(&format!("{role}_api_key"), None).value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{args::GlobalArgs, config::Config};

    const SERVER: &str = "vllm+https://h/v1#a";

    fn context(file: &str) -> Context {
        let mut config = Config::default();
        config.read(file).unwrap();
        Context { global: GlobalArgs::default(), config }
    }

    fn sent(draft: &str, file: &str) -> Option<ApiKey> {
        let args = ModelArgs { target: Some(SERVER.to_owned()), ..ModelArgs::default() };
        key(&draft.parse().unwrap(), DRAFT, &args, &context(file)).unwrap()
    }

    #[test]
    fn a_key_goes_to_its_own_server_only() {
        let target = "target_api_key = \"t\"";
        let both = "target_api_key = \"t\"\ndraft_api_key = \"d\"";
        let key = |text: &str| Some(ApiKey::new(text).unwrap());
        assert_eq!(sent("sglang+https://h:443/v1#b", target), key("t"));
        assert_eq!(sent("vllm+https://other/v1#b", target), None);
        assert_eq!(sent("vllm+http://h/v1#b", target), None, "not over another scheme");
        assert_eq!(sent("vllm+https://other/v1#b", both), key("d"));
        assert_eq!(sent(SERVER, ""), None);
    }

    #[test]
    fn one_name_is_one_model_unless_the_keys_differ() {
        assert!(same_key(SERVER, &context("target_api_key = \"t\"")));
        assert!(!same_key(SERVER, &context("target_api_key = \"t\"\ndraft_api_key = \"d\"")));
        assert!(same_key("models/a", &context("draft_api_key = \"d\"")));
    }

    #[test]
    fn addresses_are_no_object_storage_and_have_no_files() {
        assert!(address("s3://b/m").unwrap().is_none() && address("models/a").unwrap().is_none());
        assert!(address(SERVER).unwrap().is_some());
        assert!(address("vlm+http://h/v1").unwrap_err().is::<Usage>());
        assert!(refuse_files(SERVER).unwrap_err().to_string().contains("on a server"));
        assert!(refuse_files("hf://a/b").is_ok());
    }
}
