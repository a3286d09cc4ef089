//! A collector double: takes `POST /v1/traces` on loopback and reads the spans out of the protobuf.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// What one span says of itself.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    /// Span ids that it is linked to.
    pub(crate) links: Vec<Vec<u8>>,
}

/// Starts a collector; gives its URL and the bodies posted to it.
pub(crate) fn start() -> (String, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            answer(connection.unwrap(), &sender);
        }
    });
    (url, bodies)
}

/// One request, one answer, connection closed.
fn answer(connection: TcpStream, sender: &mpsc::Sender<Vec<u8>>) {
    let mut reader = BufReader::new(&connection);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    let mut length = 0;
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
        if name.eq_ignore_ascii_case("content-type") {
            assert_eq!(value.trim(), "application/x-protobuf");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (&connection).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    sender.send(body).unwrap();
}

/// All spans of an `ExportTraceServiceRequest`. Field numbers are those of opentelemetry-proto 1.
pub(crate) fn spans(request: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for resource_spans in fields(request, 1) {
        let resource = fields(resource_spans, 1)[0];
        for span in fields(resource_spans, 2).into_iter().flat_map(|scope| fields(scope, 2)) {
            let bytes = |number| fields(span, number).first().map(|bytes| bytes.to_vec()).unwrap_or_default();
            found.push(Span {
                service: attribute(resource, "service.name"),
                version: attribute(resource, "service.version"),
                name: String::from_utf8(bytes(5)).unwrap(),
                trace: bytes(1),
                id: bytes(2),
                parent: bytes(4),
                links: fields(span, 13).into_iter().map(|link| fields(link, 2)[0].to_vec()).collect(),
            });
        }
    }
    found
}

fn attribute(resource: &[u8], key: &str) -> String {
    let pairs = fields(resource, 1);
    let pair = pairs.iter().find(|pair| fields(pair, 1)[0] == key.as_bytes()).unwrap();
    String::from_utf8(fields(fields(pair, 2)[0], 1)[0].to_vec()).unwrap()
}

/// The length-delimited fields with this number, in order.
fn fields(mut message: &[u8], wanted: u64) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let skip = match key & 7 {
            0 => {
                varint(&mut message);
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)).unwrap(),
            5 => 4,
            wire => panic!("wire type {wire}"),
        };
        let (field, rest) = message.split_at(skip);
        if key & 7 == 2 && key >> 3 == wanted {
            found.push(field);
        }
        message = rest;
    }
    found
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first().unwrap();
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}
