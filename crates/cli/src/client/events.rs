//! Following a job or a batch: server-sent events, taken up again after the last one where the connection breaks.

use std::time::Duration;

use reqwest::{
    Method, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::Value;

use super::{Client, NotThere};

/// The server tells something, a comment at least, more often than this.
const SILENCE: Duration = Duration::from_secs(60);
/// Tries to take up a stream again, one after the other without an event in between.
const TRIES: u32 = 8;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// Its name.
    pub(crate) name: String,
    /// What it says.
    pub(crate) data: Value,
}

/// Events until the end.
pub(crate) struct Events {
    client: Client,
    path: Vec<String>,
    last: Option<String>,
    under_way: Option<Response>,
    buffer: Buffer,
    tries: u32,
    ended: bool,
}

impl Events {
    /// The events of `jobs/ID` or `batches/NAME`.
    pub(crate) fn of(client: &Client, kind: &str, name: &str) -> Self {
        Self {
            client: client.clone(),
            path: vec![kind.to_owned(), name.to_owned(), "events".to_owned()],
            last: None,
            under_way: None,
            buffer: Buffer::default(),
            tries: 0,
            ended: false,
        }
    }

    /// The next event; none after the last one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if self.ended {
                return Ok(None);
            }
            if let Some(raw) = self.buffer.next() {
                self.tries = 0;
                self.last = raw.id.or(self.last.take());
                self.ended = raw.name == "end";
                return Ok(Some(Event { data: serde_json::from_str(&raw.data)?, name: raw.name }));
            }
            if self.under_way.is_none() && !self.open().await? {
                return Ok(None);
            }
            self.read().await;
        }
    }

    /// Opens the stream after the last event; false where there is nothing more.
    async fn open(&mut self) -> anyhow::Result<bool> {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let mut request = self.client.request(Method::GET, &parts).header(ACCEPT, "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header("last-event-id", last);
        }
        self.buffer = Buffer::default();
        match self.client.send(request).await {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => Ok(false),
            Ok(response) => {
                let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                anyhow::ensure!(
                    kind.is_some_and(|kind| kind.starts_with("text/event-stream")),
                    "the server sends no events: it does not look like a spectemp server"
                );
                self.under_way = Some(response);
                Ok(true)
            }
            Err(error) if error.is::<NotThere>() || self.last.is_none() || self.tries >= TRIES => Err(error),
            Err(_) => {
                self.pause().await;
                Ok(true)
            }
        }
    }

    async fn read(&mut self) {
        let Some(response) = &mut self.under_way else { return };
        match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(Ok(Some(piece))) => self.buffer.push(&piece),
            _ => {
                self.under_way = None;
                self.pause().await;
            }
        }
    }

    async fn pause(&mut self) {
        self.tries += 1;
        tokio::time::sleep(Duration::from_millis(200) * 2_u32.saturating_pow(self.tries.min(6))).await;
    }
}

/// An event as it is written.
#[derive(Debug, Default, PartialEq)]
struct Raw {
    name: String,
    id: Option<String>,
    data: String,
}

/// Bytes that are no whole event yet.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Raw> {
        loop {
            let end = self.bytes.windows(2).position(|two| two == b"\n\n")?;
            let block: Vec<u8> = self.bytes.drain(..end + 2).collect();
            let mut raw = Raw::default();
            for line in String::from_utf8_lossy(&block).lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => raw.name = value.to_owned(),
                    "id" => raw.id = Some(value.to_owned()),
                    "data" if raw.data.is_empty() => raw.data = value.to_owned(),
                    "data" => raw.data = format!("{}\n{value}", raw.data),
                    _ => {}
                }
            }
            // A comment, which keeps the connection alive.
            if !raw.data.is_empty() {
                return Some(raw);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_of_any_pieces() {
        let text = ": hello\n\nevent: status\nid: 0-queued\ndata: {\"a\": 1}\n\nevent: end\ndata: 1\ndata: 2\n\nevent: part";
        for size in [1, 2, 7, text.len()] {
            let mut buffer = Buffer::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                buffer.push(piece);
                events.extend(std::iter::from_fn(|| buffer.next()));
            }
            let raw = |name: &str, id: Option<&str>, data: &str| Raw {
                name: name.to_owned(),
                id: id.map(str::to_owned),
                data: data.to_owned(),
            };
            assert_eq!(events, [raw("status", Some("0-queued"), "{\"a\": 1}"), raw("end", None, "1\n2")]);
        }
    }
}
