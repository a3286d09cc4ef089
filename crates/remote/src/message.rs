//! Conversations as the protocol writes them.

use spectemp_engine::{Message, Part};

use crate::{
    Picture,
    wire::{ChatMessage, ChatPart, Content, ImageUrl},
};

/// The messages with their images encoded: work for a thread that may be kept busy.
///
/// # Errors
/// An image that cannot be encoded, by its size.
pub(crate) fn chat_messages(messages: &[Message], picture: Picture) -> Result<Vec<ChatMessage>, String> {
    messages.iter().map(|message| chat_message(message, picture)).collect()
}

fn chat_message(message: &Message, picture: Picture) -> Result<ChatMessage, String> {
    let mut parts: Vec<ChatPart> = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text(text) | Part::Generated { text, .. } => push_text(&mut parts, text),
            Part::Image(frame) => {
                parts.push(ChatPart::ImageUrl { image_url: ImageUrl { url: picture.data_url(frame)? } });
            }
        }
    }
    let content = match parts.as_slice() {
        [] => Content::Text(String::new()),
        [ChatPart::Text { text }] => Content::Text(text.clone()),
        _ => Content::Parts(parts),
    };
    Ok(ChatMessage { role: message.role.as_str(), content })
}

/// Neighbouring texts are one: servers join parts with a line break or without.
fn push_text(parts: &mut Vec<ChatPart>, more: &str) {
    match parts.last_mut() {
        Some(ChatPart::Text { text }) => text.push_str(more),
        _ => parts.push(ChatPart::Text { text: more.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spectemp_engine::{RgbImage, Role};

    use super::*;

    #[test]
    fn texts_are_plain_and_images_stand_between_them() {
        let text = |text: &str| Part::Text(text.to_owned());
        let frame = RgbImage { width: 1, height: 1, data: [9, 9, 9].into() };
        let url = Picture::Png.data_url(&frame).unwrap();
        let generated = Part::Generated { text: "<answer>7</answer>".to_owned(), token_ids: vec![1, 2] };
        let messages = [
            Message { role: Role::System, parts: vec![text("be "), text("brief")] },
            Message {
                role: Role::User,
                parts: vec![text("0s: "), Part::Image(frame), text("\n"), text("?")],
            },
            Message { role: Role::Assistant, parts: vec![generated] },
            Message { role: Role::User, parts: vec![] },
        ];
        let sent = serde_json::to_value(chat_messages(&messages, Picture::Png).unwrap()).unwrap();
        let parts = json!([
            { "type": "text", "text": "0s: " },
            { "type": "image_url", "image_url": { "url": url } },
            { "type": "text", "text": "\n?" },
        ]);
        let expected = json!([
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": parts },
            { "role": "assistant", "content": "<answer>7</answer>" },
            { "role": "user", "content": "" },
        ]);
        assert_eq!(sent, expected);
    }
}
