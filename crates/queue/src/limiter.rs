//! Rate limits: a bucket of tokens per key, in Redis for all processes together, or in memory. While Redis is gone each
//! process limits for itself: a limit that is off by the number of processes is better than none, or than a refusal.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redis::Script;

use crate::{Doorbell, link::Link};

/// Buckets in memory beyond which full ones are dropped.
const MOST_BUCKETS: usize = 10_000;

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// It may pass.
    Allowed,
    /// It is one too many; after this time there is a token again.
    RetryAfter(Duration),
}

/// Counts requests. Clones count together.
#[derive(Clone, Default)]
pub struct Limiter {
    redis: Option<Link>,
    memory: Arc<Mutex<HashMap<String, Bucket>>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
    /// When it is full again.
    full: Instant,
}

impl Limiter {
    /// Counts for this process only.
    pub fn memory() -> Self {
        Self::default()
    }

    /// Counts beside `doorbell`: in its Redis, or for this process.
    pub fn beside(doorbell: &Doorbell) -> Self {
        Self { redis: doorbell.link().cloned(), memory: Arc::default() }
    }

    /// Takes a token from the bucket of `key`, which gains `per_second` tokens a second and holds `burst` at most.
    pub async fn check(&self, key: &str, per_second: f64, burst: u32) -> Limit {
        let (rate, burst) = (per_second.max(1e-6), f64::from(burst.max(1)));
        if let Some(link) = &self.redis {
            let bucket = link.key(&format!("limit:{key}"));
            let (rate, burst) = (rate.to_string(), burst.to_string());
            let waited: Result<u64, _> =
                link.run(&TAKE, &[&bucket], &[rate.as_bytes(), burst.as_bytes()]).await;
            if let Ok(wait_ms) = waited {
                return limit(Duration::from_millis(wait_ms));
            }
        }
        self.take(key, rate, burst)
    }

    fn take(&self, key: &str, rate: f64, burst: f64) -> Limit {
        let now = Instant::now();
        let mut buckets = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_BUCKETS {
            buckets.retain(|_, bucket| bucket.full > now);
        }
        let bucket = buckets.entry(key.to_owned()).or_insert(Bucket { tokens: burst, at: now, full: now });
        let tokens = (bucket.tokens + (now - bucket.at).as_secs_f64() * rate).min(burst);
        let taken = tokens >= 1.0;
        let left = if taken { tokens - 1.0 } else { tokens };
        let full = now + Duration::from_secs_f64(((burst - left) / rate).min(1e6));
        *bucket = Bucket { tokens: left, at: now, full };
        if taken { Limit::Allowed } else { limit(Duration::from_secs_f64(((1.0 - left) / rate).min(1e6))) }
    }
}

fn limit(wait: Duration) -> Limit {
    if wait.is_zero() { Limit::Allowed } else { Limit::RetryAfter(wait) }
}

/// Takes a token by the clock of Redis; the wait in milliseconds where there is none. A full bucket is no key.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]) \
         local time = redis.call('time') \
         local now = tonumber(time[1]) + tonumber(time[2]) / 1e6 \
         local kept = redis.call('hmget', KEYS[1], 'tokens', 'at') \
         local tokens = burst \
         if kept[1] then tokens = math.min(burst, tonumber(kept[1]) + math.max(0, now - tonumber(kept[2])) * rate) end \
         local wait = 0 \
         if tokens >= 1 then tokens = tokens - 1 else wait = math.max(1, math.ceil((1 - tokens) / rate * 1000)) end \
         redis.call('hset', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now)) \
         redis.call('pexpire', KEYS[1], math.ceil((burst - tokens) / rate * 1000) + 1000) \
         return wait",
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn buckets_that_are_full_again_are_forgotten() {
        let limiter = Limiter::memory();
        for no in 0..MOST_BUCKETS {
            limiter.check(&no.to_string(), 1e6, 1).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        limiter.check("one more", 1.0, 1).await;
        assert!(limiter.memory.lock().unwrap().len() < 10);
    }
}
