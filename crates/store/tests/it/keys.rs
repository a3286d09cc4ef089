//! API keys, on both databases.

use spectemp_store::{Role, StoreError};

use crate::ledgers::both;

#[tokio::test]
async fn a_key_opens_until_it_is_revoked() {
    for (name, ledger, _kept) in both().await {
        assert!(!ledger.any_key().await.unwrap(), "{name}");
        let made = ledger.create_key("acme", Role::Submit, "nightly").await.unwrap();
        let other = ledger.create_key("other", Role::Admin, "").await.unwrap();
        assert!(ledger.any_key().await.unwrap());
        let key = ledger.key_of(&made.secret).await.unwrap().unwrap();
        assert_eq!(
            (key.id.as_str(), key.tenant.as_str(), key.role),
            (made.id.as_str(), "acme", Role::Submit)
        );
        assert_eq!((key.name.as_str(), key.used_ms, key.revoked_ms), ("nightly", None, None));

        let kept = ledger.keys(Some("acme")).await.unwrap();
        assert_eq!(kept.len(), 1);
        let first_use = kept[0].used_ms.unwrap();
        ledger.key_of(&made.secret).await.unwrap().unwrap();
        let kept = ledger.keys(None).await.unwrap();
        let ours = kept.iter().find(|key| key.id == made.id).unwrap();
        assert_eq!((kept.len(), ours.used_ms), (2, Some(first_use)), "no write per request");

        let mut wrong = made.secret.clone();
        wrong.replace_range(10..11, if &wrong[10..11] == "0" { "1" } else { "0" });
        for secret in [wrong.as_str(), "", "stk_", made.id.as_str(), "' or 1=1 --"] {
            assert_eq!(ledger.key_of(secret).await.unwrap(), None, "{secret}");
        }
        assert!(ledger.revoke_key(&made.id).await.unwrap());
        assert!(!ledger.revoke_key(&made.id).await.unwrap());
        assert_eq!(ledger.key_of(&made.secret).await.unwrap(), None);
        assert!(ledger.key_of(&other.secret).await.unwrap().is_some());
        assert!(matches!(ledger.revoke_key("key_none").await, Err(StoreError::NoKey(_))));
        assert!(ledger.create_key("bad tenant", Role::Read, "").await.is_err());
    }
}
