//! Tenants' API keys. A secret is shown once, when it is made; the ledger keeps a hash.
//!
//! The hash is a plain blake3, not a slow one: slow hashes protect passwords, which people choose and others can guess.
//! A secret here is 256 random bits, so that no number of guesses per second helps whoever reads the table, while the
//! server hashes once per request. Looking a key up by its hash gives nothing away by its time either: what can be
//! measured depends on the hash, which nobody can steer without knowing the secret.

use std::{fmt, str::FromStr};

use rand::{TryRngCore as _, rngs::OsRng};

use crate::{Ledger, LedgerReader, StoreError, db::Row, db::query};

/// What every secret begins with: scanners for leaked secrets look for such a mark.
const MARK: &str = "stk_";
/// The time of the last use is kept no finer than this, to spare a write per request.
const USED_EVERY_MS: i64 = 5 * 60 * 1000;

/// What a key may do. Each role includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read jobs, answers and traces.
    Read,
    /// Submit, cancel and retry jobs too.
    Submit,
    /// Everything of the tenant, its indexes too.
    Admin,
}

impl Role {
    /// The word in rows and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }

    /// True where this role includes `other`.
    pub fn includes(self, other: Self) -> bool {
        self >= other
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no role.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown role {0:?}: use read, submit or admin")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Read, Self::Submit, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A key that was just made.
#[derive(Clone)]
pub struct NewKey {
    /// Names it.
    pub id: String,
    /// The only time that anybody sees it.
    pub secret: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Names it.
    pub id: String,
    /// Whose jobs it reaches.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
    /// What its owner calls it.
    pub name: String,
    /// When it was made, milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last used, to about five minutes.
    pub used_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
}

impl ApiKey {
    fn read(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.get("id")?,
            tenant: row.get("tenant")?,
            role: row.parse("role")?,
            name: row.get("name")?,
            created_ms: row.get("created_at")?,
            used_ms: row.get("used_at")?,
            revoked_ms: row.get("revoked_at")?,
        })
    }
}

/// Checks the name of a tenant: 1 to 64 letters, digits, `.`, `_` and `-`, a letter or digit first.
///
/// # Errors
/// [`StoreError::Invalid`].
pub fn check_tenant(tenant: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = tenant.len() <= 64
        && tenant.starts_with(|c: char| c.is_ascii_alphanumeric())
        && tenant.chars().all(plain);
    match good {
        true => Ok(()),
        false => Err(StoreError::Invalid(format!(
            "tenant {tenant:?} is no name: use up to 64 letters, digits, `.`, `_` and `-`, a letter or digit first"
        ))),
    }
}

const COLUMNS: &str = "id, tenant, role, name, created_at, used_at, revoked_at";

impl Ledger {
    /// Makes a key.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Database`].
    pub async fn create_key(&self, tenant: &str, role: Role, name: &str) -> Result<NewKey, StoreError> {
        check_tenant(tenant)?;
        if name.len() > 200 || name.chars().any(char::is_control) {
            return Err(StoreError::Invalid("a key's name is one line of at most 200 bytes".to_owned()));
        }
        let key = NewKey { id: format!("key_{}", random_hex::<6>()?), secret: secret()? };
        query(
            "make a key",
            "insert into ledger_keys (id, tenant, role, name, hash, created_at) values ($1, $2, $3, $4, $5, {now})",
        )
        .bind(&key.id)
        .bind(tenant)
        .bind(role.as_str())
        .bind(name)
        .bind(hash(&key.secret).as_slice())
        .execute(&self.writes)
        .await?;
        Ok(key)
    }

    /// The key with this secret, unless it was revoked; its use is noted.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn key_of(&self, secret: &str) -> Result<Option<ApiKey>, StoreError> {
        if !looks_like_a_secret(secret) {
            return Ok(None);
        }
        let text = format!(
            "select {COLUMNS}, (coalesce(used_at, 0) < {{now}} - {USED_EVERY_MS}) as stale from ledger_keys \
             where hash = $1 and revoked_at is null"
        );
        let found = query("look up a key", text).bind(hash(secret).as_slice()).optional(&self.reads).await?;
        let Some(row) = found else { return Ok(None) };
        let key = ApiKey::read(&row)?;
        if row.get("stale")? {
            let noted = query("note a key's use", "update ledger_keys set used_at = {now} where id = $1")
                .bind(&key.id)
                .execute(&self.writes)
                .await;
            // A request is not refused because a date could not be written.
            if let Err(error) = noted {
                tracing::warn!(key.id, error = %error, "the use of a key cannot be noted");
            }
        }
        Ok(Some(key))
    }

    /// Revokes a key at once and for good; true where it was good before.
    ///
    /// # Errors
    /// [`StoreError::NoKey`], [`StoreError::Database`].
    pub async fn revoke_key(&self, id: &str) -> Result<bool, StoreError> {
        let text = "update ledger_keys set revoked_at = {now} where id = $1 and revoked_at is null";
        if query("revoke a key", text).bind(id).execute(&self.writes).await? > 0 {
            return Ok(true);
        }
        let known = query("look up a key", "select id from ledger_keys where id = $1").bind(id);
        match known.optional(&self.reads).await? {
            Some(_) => Ok(false),
            None => Err(StoreError::NoKey(id.to_owned())),
        }
    }
}

impl LedgerReader {
    /// All keys, the oldest first, revoked ones too; those of one tenant where it is given.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn keys(&self, tenant: Option<&str>) -> Result<Vec<ApiKey>, StoreError> {
        let text = format!(
            "select {COLUMNS} from ledger_keys where (cast($1 as text) is null or tenant = $1) order by created_at, id"
        );
        let rows = query("list keys", text).bind(tenant).all(&self.reads).await?;
        rows.iter().map(ApiKey::read).collect()
    }

    /// True where a key is good: a server without any may listen on loopback only.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn any_key(&self) -> Result<bool, StoreError> {
        let found = query("look for keys", "select id from ledger_keys where revoked_at is null limit 1");
        Ok(found.optional(&self.reads).await?.is_some())
    }
}

fn secret() -> Result<String, StoreError> {
    Ok(format!("{MARK}{}", random_hex::<32>()?))
}

fn looks_like_a_secret(text: &str) -> bool {
    text.strip_prefix(MARK).is_some_and(|rest| rest.len() == 64)
}

fn hash(secret: &str) -> [u8; 32] {
    *blake3::hash(secret.as_bytes()).as_bytes()
}

/// `N` bytes from the operating system as hexadecimal digits.
fn random_hex<const N: usize>() -> Result<String, StoreError> {
    let mut bytes = [0; N];
    let failed = |error| StoreError::Invalid(format!("the system gives no random bytes: {error}"));
    OsRng.try_fill_bytes(&mut bytes).map_err(failed)?;
    Ok(hex(&bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_marked_long_and_never_alike() {
        let secrets: std::collections::HashSet<_> = (0..100).map(|_| secret().unwrap()).collect();
        assert_eq!(secrets.len(), 100);
        assert!(secrets.iter().all(|secret| looks_like_a_secret(secret)));
        assert!(!looks_like_a_secret("stk_") && !looks_like_a_secret(""));
        let shown = format!("{:?}", NewKey { id: "key_1".into(), secret: secret().unwrap() });
        assert!(!shown.contains(MARK), "{shown}");
    }

    #[test]
    fn a_role_includes_those_before_it() {
        assert!(Role::Admin.includes(Role::Read) && Role::Submit.includes(Role::Submit));
        assert!(!Role::Read.includes(Role::Submit));
        assert_eq!("submit".parse(), Ok(Role::Submit));
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn tenants_have_plain_names() {
        for good in ["default", "a", "Team-7.x_y"] {
            check_tenant(good).unwrap();
        }
        for bad in ["", "-a", "a b", "a/b", "ü", "a\0", &"x".repeat(65)] {
            assert!(check_tenant(bad).is_err(), "{bad}");
        }
    }
}
