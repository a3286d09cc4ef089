//! Kept sequences: the KV of what was asked before, found by the content of its tokens, so that a prompt that begins alike
//! needs only the rest. All models of a device share one store; the least recently used leave first.

use crate::kv::Cache;

/// Which model of a device.
pub(crate) type ModelId = u64;

/// Kept sequences, the most recently used last.
#[derive(Debug, Default)]
pub(crate) struct KeptSequences {
    kept: Vec<Kept>,
}

#[derive(Debug)]
struct Kept {
    model: ModelId,
    /// One key per cached token.
    keys: Vec<u64>,
    cache: Cache,
}

impl KeptSequences {
    /// Tokens that the best of a model's kept sequences shares with these keys.
    pub(crate) fn longest(&self, model: ModelId, keys: &[u64]) -> usize {
        self.best(model, keys).map_or(0, |(_, length)| length)
    }

    /// A fork of the longest kept prefix of these keys.
    pub(crate) fn fork(&mut self, model: ModelId, keys: &[u64]) -> Option<Cache> {
        let (number, length) = self.best(model, keys)?;
        let used = self.kept.remove(number);
        let fork = used.cache.fork(length);
        self.kept.push(used);
        Some(fork)
    }

    /// Number and length of the longest shared prefix, where there is one.
    fn best(&self, model: ModelId, keys: &[u64]) -> Option<(usize, usize)> {
        let of_model = self.kept.iter().enumerate().filter(|(_, kept)| kept.model == model);
        let lengths = of_model.map(|(number, kept)| (number, common(&kept.keys, keys)));
        lengths.max_by_key(|&(_, length)| length).filter(|&(_, length)| length > 0)
    }

    /// Keeps a sequence; `keys` name its tokens.
    pub(crate) fn put(&mut self, model: ModelId, keys: Vec<u64>, cache: Cache) {
        // What the new one begins with is worth nothing beside it.
        self.kept.retain(|kept| kept.model != model || !keys.starts_with(&kept.keys));
        self.kept.push(Kept { model, keys, cache });
    }

    /// Drops the least recently used; false where nothing is left.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        if self.kept.is_empty() {
            return false;
        }
        self.kept.remove(0);
        true
    }

    /// Drops all of a model.
    pub(crate) fn clear(&mut self, model: ModelId) {
        self.kept.retain(|kept| kept.model != model);
    }
}

/// Keys that both begin with.
pub(crate) fn common(a: &[u64], b: &[u64]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
