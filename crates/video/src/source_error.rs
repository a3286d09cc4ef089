//! What a store's error means for a video. Texts of HTTP clients hold the whole URL with its signature, so every
//! query is cut out before a text goes anywhere.

use std::ops::Range;

use crate::VideoError;

/// Maps a store's error for a range.
pub(crate) fn store_error(uri: &str, range: &Range<u64>, error: &object_store::Error) -> VideoError {
    let (uri, cause) = (uri.to_owned(), without_queries(&chain(error)));
    let (at, length) = (range.start, range.end - range.start);
    match error {
        object_store::Error::NotFound { .. } => VideoError::Missing { uri, at, cause },
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            VideoError::Forbidden { uri, at, cause }
        }
        object_store::Error::NotSupported { .. } => VideoError::NoRanges { uri, cause },
        object_store::Error::Precondition { .. } => VideoError::Changed { uri, at },
        _ if at == 0 && is_beyond_end(&cause) => VideoError::Empty { uri },
        _ if cause.contains("Content-Range") || cause.contains("non-partial") => {
            VideoError::NoRanges { uri, cause }
        }
        object_store::Error::Generic { store: "LocalFileSystem", .. }
        | object_store::Error::InvalidPath { .. }
        | object_store::Error::NotImplemented { .. } => VideoError::Refused { uri, at, length, cause },
        _ if is_refusal(&cause) => VideoError::Refused { uri, at, length, cause },
        _ => VideoError::Store { uri, at, length, cause },
    }
}

/// A range from byte 0 can only be unsatisfiable where there are no bytes.
fn is_beyond_end(cause: &str) -> bool {
    cause.contains("416") || cause.contains("object was only 0 bytes long")
}

/// A 4xx that another try does not change.
fn is_refusal(cause: &str) -> bool {
    let status = cause.split_once("status code: 4").and_then(|(_, rest)| rest.get(..2));
    matches!(status, Some(digits) if !matches!(digits, "08" | "25" | "29"))
}

/// The error with its causes, none twice.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}

/// One line of at most 300 characters in which no URL has a query or user info.
fn without_queries(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !clean.is_empty() {
            clean.push(' ');
        }
        match word.find("://") {
            Some(scheme) => clean.push_str(&without_query(word, scheme + 3)),
            None => clean.push_str(word),
        }
    }
    match clean.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

fn without_query(word: &str, host: usize) -> String {
    let end = word.find('?').unwrap_or(word.len());
    let authority_end = word[host..].find('/').map_or(end, |slash| (host + slash).min(end));
    let user_end = word[host..authority_end].rfind('@').map_or(host, |at| host + at + 1);
    let closing = word.rfind([')', '"', ',']).filter(|at| *at > end);
    format!("{}{}{}", &word[..host], &word[user_end..end], closing.map_or("", |at| &word[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_cut_out_of_messages() {
        let text =
            "error sending request for url (https://me:pw@host/a/b.mp4?X-Amz-Signature=secret) after 2s";
        assert_eq!(without_queries(text), "error sending request for url (https://host/a/b.mp4) after 2s");
        assert_eq!(without_queries("a\nb  c"), "a b c");
    }

    #[test]
    fn statuses_are_told_apart() {
        assert!(is_refusal("Server returned non-2xx status code: 400 Bad Request"));
        assert!(!is_refusal("Server returned non-2xx status code: 429 Too Many Requests"));
        assert!(!is_refusal("Server returned non-2xx status code: 503"));
    }

    #[test]
    fn ranges_of_an_empty_object_say_so() {
        let error = object_store::Error::Generic {
            store: "S3",
            source: "Server returned non-2xx status code: 416 Range Not Satisfiable".into(),
        };
        assert_eq!(store_error("s3://b/k", &(0..10), &error), VideoError::Empty { uri: "s3://b/k".into() });
    }
}
