//! A model as one job sees it: every generation is told to the log when it starts and when it ends, with the job, so
//! that what was generated can be counted even where a crash lost the round (`SPECTEMP_LOG=spectemp_worker=debug`).

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use spectemp_engine::{Generation, ModelCard, Request, Vlm, VlmError};

use crate::event::JobName;

/// A model, named and told of.
pub(crate) struct Metered {
    inner: Arc<dyn Vlm>,
    role: &'static str,
    name: JobName,
    round: Arc<AtomicU32>,
}

impl Metered {
    /// `round` holds the number of the round that is being made.
    pub(crate) fn new(inner: Arc<dyn Vlm>, role: &'static str, name: JobName, round: Arc<AtomicU32>) -> Self {
        Self { inner, role, name, round }
    }
}

#[async_trait]
impl Vlm for Metered {
    fn card(&self) -> &ModelCard {
        self.inner.card()
    }

    async fn generate(&self, request: Request) -> Result<Generation, VlmError> {
        let round = self.round.load(Ordering::Relaxed);
        tracing::debug!(
            job.id = %self.name.job, job.user_id = &*self.name.id, round.no = round, model.role = self.role,
            "generation started"
        );
        let generation = self.inner.generate(request).await?;
        tracing::debug!(
            job.id = %self.name.job, job.user_id = &*self.name.id, round.no = round, model.role = self.role,
            tokens.generated = generation.counts.generated, tokens.text = generation.counts.text,
            tokens.visual = generation.counts.visual, tokens.reused = generation.counts.reused,
            tokens.encoded = generation.counts.encoded,
            "generation ended"
        );
        Ok(generation)
    }
}
