//! A bounded list, in Redis or in this process, as an apalis backend. Taking a message is its acknowledgement.
//!
//! A blocking pop is on its way only while the [`Gate`] is open. Whoever holds a message in its hands and cannot use
//! it keeps others asleep, so the list is left alone by those who would not look into the ledger anyway.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use apalis::prelude::TaskSink as _;
use apalis_core::{
    backend::custom::{BackendBuilder, BuildError, CustomBackend},
    task::{Task, builder::TaskBuilder},
};
use futures::{
    Sink, StreamExt as _,
    sink::unfold as sink_of,
    stream::{BoxStream, unfold},
};
use redis::{AsyncConnectionConfig, Script, aio::MultiplexedConnection};
use tokio::sync::{Notify, watch};

use crate::{QueueError, link::Link, message::Message};

/// Most messages that lie in a list: a burst of rings wakes at most so many workers, which ring on for others.
pub(crate) const CAP: usize = 64;
/// Messages that nobody took within this time are dropped with their list.
const TTL_S: u32 = 600;
/// One blocking pop. Longer ones are cheaper; Redis notices a client that has gone without a word only after it.
const BLOCK: Duration = Duration::from_secs(2);
/// Waits between tries to connect.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// `true` while messages are wanted.
pub(crate) type Gate = watch::Receiver<bool>;

type Fetch<M> = BoxStream<'static, Result<Option<Task<M>>, QueueError>>;
type Push<M> = Pin<Box<dyn Sink<Task<M>, Error = QueueError> + Send>>;
/// What an apalis worker is built over.
pub(crate) type ListBackend<M> = CustomBackend<M, List<M>, Fetch<M>, Push<M>>;

/// A list of messages.
pub(crate) struct List<M> {
    place: Place,
    gate: Gate,
    kind: PhantomData<fn() -> M>,
}

/// Where a list is.
#[derive(Clone)]
enum Place {
    Redis { link: Link, name: &'static str },
    Memory(Arc<Memory>),
}

#[derive(Default)]
struct Memory {
    messages: Mutex<VecDeque<Vec<u8>>>,
    more: Notify,
}

impl<M> Clone for List<M> {
    fn clone(&self) -> Self {
        Self { place: self.place.clone(), gate: self.gate.clone(), kind: PhantomData }
    }
}

/// How a message is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum How<'a> {
    /// Beside others like it.
    Each,
    /// Only if none like it waits.
    Once,
    /// Once per name: of many processes that send at the same tick one does.
    Tick(&'a str),
}

impl<M: Message + Clone> List<M> {
    /// The list `name` in Redis.
    pub(crate) fn redis(link: Link, name: &'static str, gate: Gate) -> Self {
        Self { place: Place::Redis { link, name }, gate, kind: PhantomData }
    }

    /// A list in this process.
    pub(crate) fn memory(gate: Gate) -> Self {
        Self { place: Place::Memory(Arc::default()), gate, kind: PhantomData }
    }

    /// The apalis backend over the list.
    pub(crate) fn backend(&self) -> Result<ListBackend<M>, QueueError> {
        let built = BackendBuilder::new()
            .database(self.clone())
            .fetcher(|list: &mut Self, (): &(), _| list.messages())
            .sink(|list: &mut Self, (): &()| list.sink())
            .build();
        built.map_err(|cause: BuildError| QueueError::Down(cause.to_string()))
    }

    /// Sends a message, unless it is needless.
    pub(crate) async fn send(&self, message: &M, how: How<'_>) -> Result<(), QueueError> {
        match &self.place {
            Place::Redis { link, name } => send(link, name, &message.to_bytes(), how).await,
            Place::Memory(memory) => {
                memory.send(message.to_bytes(), how);
                Ok(())
            }
        }
    }

    /// Sends through apalis.
    pub(crate) async fn push(&self, message: M) -> Result<(), QueueError> {
        let pushed = self.backend()?.push_task(TaskBuilder::new(message).build()).await;
        pushed.map_err(|error| QueueError::Down(error.to_string()))
    }

    /// Messages as they come in, for as long as the list is wanted. Faults of Redis end nothing here.
    fn messages(&self) -> Fetch<M> {
        let taker =
            Taker { gate: self.gate.clone(), place: self.place.clone(), connection: None, wait: RETRY.0 };
        unfold(taker, |mut taker| async move {
            loop {
                let bytes = taker.next().await?;
                if let Some(message) = M::from_bytes(&bytes) {
                    return Some((Ok(Some(TaskBuilder::new(message).build())), taker));
                }
            }
        })
        .boxed()
    }

    fn sink(&self) -> Push<M> {
        Box::pin(sink_of(self.clone(), |list: Self, task: Task<M>| async move {
            list.send(&task.args, How::Each).await?;
            Ok(list)
        }))
    }
}

async fn send(link: &Link, name: &str, message: &[u8], how: How<'_>) -> Result<(), QueueError> {
    let list = link.key(name);
    let tick = match how {
        How::Tick(name) => Some(link.key(&format!("tick:{name}"))),
        _ => None,
    };
    let once: &[u8] = if matches!(how, How::Once) { b"1" } else { b"0" };
    let (cap, ttl) = (CAP.to_string(), TTL_S.to_string());
    // A script may only touch keys that it was given.
    let keys: Vec<&str> = [Some(list.as_str()), tick.as_deref()].into_iter().flatten().collect();
    link.run::<()>(&SEND, &keys, &[message, cap.as_bytes(), ttl.as_bytes(), once]).await
}

/// Sends in one step: not twice per tick or beside its like, never more than the cap, never for ever.
static SEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if KEYS[2] and not redis.call('set', KEYS[2], '1', 'nx', 'ex', ARGV[3]) then return 0 end \
         if ARGV[4] == '1' and redis.call('lpos', KEYS[1], ARGV[1]) then return 0 end \
         redis.call('rpush', KEYS[1], ARGV[1]) \
         redis.call('ltrim', KEYS[1], -tonumber(ARGV[2]), -1) \
         redis.call('expire', KEYS[1], ARGV[3]) \
         return 1",
    )
});

impl Memory {
    fn send(&self, message: Vec<u8>, how: How<'_>) {
        let mut messages = self.messages();
        if matches!(how, How::Once) && messages.contains(&message) {
            return;
        }
        if messages.len() >= CAP {
            messages.pop_front();
        }
        messages.push_back(message);
        drop(messages);
        self.more.notify_one();
    }

    /// The oldest message; waits for one.
    async fn take(&self) -> Vec<u8> {
        loop {
            let more = self.more.notified();
            let taken = self.messages().pop_front();
            match taken {
                Some(message) => return message,
                None => more.await,
            }
        }
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes messages, from Redis over a connection of its own, since a blocking pop holds up everything behind it.
struct Taker {
    gate: Gate,
    place: Place,
    connection: Option<MultiplexedConnection>,
    wait: Duration,
}

impl Taker {
    /// The next message; `None` where nobody will want one any more.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            self.gate.wait_for(|wanted| *wanted).await.ok()?;
            match self.take().await {
                Ok(taken) => {
                    self.wait = RETRY.0;
                    if taken.is_some() {
                        return taken;
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %error, "cannot take from a list of redis");
                    self.connection = None;
                    tokio::time::sleep(self.wait).await;
                    self.wait = (self.wait * 2).min(RETRY.1);
                }
            }
        }
    }

    async fn take(&mut self) -> Result<Option<Vec<u8>>, QueueError> {
        let (link, name) = match &self.place {
            Place::Redis { link, name } => (link, name),
            Place::Memory(memory) => return Ok(Some(memory.take().await)),
        };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(link).await?),
        };
        let pop = redis::cmd("BLPOP").arg(link.key(name)).arg(BLOCK.as_secs_f64()).to_owned();
        let taken: Option<(String, Vec<u8>)> = pop.query_async(connection).await?;
        Ok(taken.map(|(_, bytes)| bytes))
    }
}

async fn connect(link: &Link) -> Result<MultiplexedConnection, QueueError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(BLOCK + Duration::from_secs(1)));
    Ok(link.client().get_multiplexed_async_connection_with_config(&config).await?)
}
