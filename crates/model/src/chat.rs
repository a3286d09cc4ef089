//! The chat template: messages in, the prompt's text out, with one image pad per image.
//!
//! Taken from `chat_template.jinja`, `chat_template.json` or `tokenizer_config.json`, in this order. Where a checkpoint has
//! none, Qwen2.5-VL's format is assumed: `<|im_start|>role`, the contents, `<|im_end|>`, and its stock system message
//! before a conversation that has none of its own.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use serde_json::Value as Json;
use spectemp_engine::{Message, Part};

use crate::ModelError;
use crate::files::ModelFiles;
use crate::pycompat::call_method;

const DEFAULT: &str = "\
{%- for message in messages -%}
{%- if loop.first and message.role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif -%}
{{- '<|im_start|>' ~ message.role ~ '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' if part.type == 'image' else part.text -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}";

const NAME: &str = "chat_template";

/// A compiled template.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token` and so on, which templates may print.
    specials: BTreeMap<String, Value>,
}

impl ChatTemplate {
    pub(crate) fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let config: Json = match files.read("tokenizer_config.json")? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ModelError::broken("tokenizer_config.json", error))?,
            None => Json::Null,
        };
        let (file, source) =
            match (files.read_text("chat_template.jinja")?, files.read("chat_template.json")?) {
                (Some(text), _) => ("chat_template.jinja", text),
                (None, Some(bytes)) => {
                    let json: Json = serde_json::from_slice(&bytes)
                        .map_err(|error| ModelError::broken("chat_template.json", error))?;
                    let text = template_text(json.get(NAME));
                    (
                        "chat_template.json",
                        text.ok_or_else(|| ModelError::broken("chat_template.json", "has no chat_template"))?,
                    )
                }
                (None, None) => match template_text(config.get(NAME)) {
                    Some(text) => ("tokenizer_config.json", text),
                    None => ("the built-in chat template", DEFAULT.to_owned()),
                },
            };
        Self::new(source, specials(&config)).map_err(|error| ModelError::broken(file, message(&error)))
    }

    fn new(source: String, specials: BTreeMap<String, Value>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        // As HF's environment is set up.
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(call_method);
        environment.add_function("raise_exception", |text: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, text))
        });
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, specials })
    }

    /// The prompt's text up to the assistant's turn. `generated` spells a part that the model wrote earlier.
    pub(crate) fn render(
        &self,
        messages: &[Message],
        generated: impl FnMut(&str, &[u32]) -> String,
    ) -> Result<String, ModelError> {
        let mut context = self.specials.clone();
        context.insert("messages".to_owned(), messages_value(messages, generated));
        context.insert("add_generation_prompt".to_owned(), true.into());
        let fail = |error: Error| ModelError::Prompt(format!("chat template: {}", message(&error)));
        let template = self.environment.get_template(NAME).map_err(fail)?;
        template.render(Value::from(context)).map_err(fail)
    }
}

/// A string, or the default of a list of named templates.
fn template_text(value: Option<&Json>) -> Option<String> {
    match value? {
        Json::String(text) => Some(text.clone()),
        Json::Array(named) => {
            let default =
                named.iter().find(|item| item.get("name").and_then(Json::as_str) == Some("default"));
            default.or(named.first())?.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// A special token is written as a string or as an object with `content`.
fn specials(config: &Json) -> BTreeMap<String, Value> {
    let names = ["bos_token", "eos_token", "pad_token", "unk_token"];
    let text = |value: &Json| value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from);
    names.iter().filter_map(|name| Some(((*name).to_owned(), text(config.get(*name)?)?))).collect()
}

/// Contents without images are plain strings, which every template understands.
fn messages_value(messages: &[Message], mut generated: impl FnMut(&str, &[u32]) -> String) -> Value {
    let mut list = Vec::with_capacity(messages.len());
    for message in messages {
        let mut parts = Vec::with_capacity(message.parts.len());
        for part in &message.parts {
            parts.push(match part {
                Part::Text(text) => Some(text.clone()),
                Part::Generated { text, token_ids } => Some(generated(text, token_ids)),
                Part::Image(_) => None,
            });
        }
        let content = if parts.iter().all(Option::is_some) {
            Value::from(parts.into_iter().flatten().collect::<String>())
        } else {
            parts.into_iter().map(part_value).collect::<Vec<_>>().into()
        };
        list.push(Value::from_pairs([("role", Value::from(message.role.as_str())), ("content", content)]));
    }
    list.into()
}

fn part_value(text: Option<String>) -> Value {
    match text {
        Some(text) => Value::from_pairs([("type", Value::from("text")), ("text", Value::from(text))]),
        None => Value::from_pairs([("type", Value::from("image"))]),
    }
}

/// minijinja's short text plus its detail and line.
fn message(error: &Error) -> String {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{error}{line}")
}

#[cfg(test)]
mod tests {
    use spectemp_engine::Role;

    use super::*;

    fn render(template: &str, config: &str) -> Result<String, String> {
        let config: Json = serde_json::from_str(config).unwrap();
        let template = ChatTemplate::new(template.to_owned(), specials(&config)).map_err(|e| message(&e))?;
        let messages = [
            Message { role: Role::System, parts: vec![Part::Text(" be brief ".to_owned())] },
            Message { role: Role::User, parts: vec![Part::Text("a:b".to_owned())] },
        ];
        template.render(&messages, |_, _| String::new()).map_err(|error| error.to_string())
    }

    #[test]
    fn python_methods_of_published_templates_work() {
        let template = "{%- set first = messages[0] -%}\
            {{ first.content.strip() }}|{{ first['content'].lstrip() }}|{{ messages[1].content.split(':')[-1] }}|\
            {{ messages[1].content.startswith('a') }}|{{ first.get('tool_calls') is none }}|{{ first.get('role') }}|\
            {% for key, value in {'k': 1}.items() %}{{ key }}{{ value }}{% endfor %}|{{ '<x>'.strip('<>') }}|\
            {{ 'a-b'.replace('-', '+').upper() }}|{{ eos_token }}";
        let config = r#"{"eos_token":{"content":"<|im_end|>"},"bos_token":null}"#;
        let rendered = render(template, config).unwrap();
        assert_eq!(rendered, "be brief|be brief |b|True|True|system|k1|x|A+B|<|im_end|>");
    }

    #[test]
    fn blocks_are_trimmed_as_jinja_does_and_loops_can_be_left() {
        let template = "{% for m in messages %}\n    {% if loop.index == 2 %}\n{% break %}\n    {% endif %}\n{{ m.role }}\n{% endfor %}\n";
        assert_eq!(render(template, "{}").unwrap(), "system\n");
    }

    #[test]
    fn a_template_can_refuse() {
        let error = render("{{ raise_exception('only one turn') }}", "{}").unwrap_err();
        assert!(error.contains("only one turn"), "{error}");
        assert!(render("{% for %}", "{}").is_err());
    }

    #[test]
    fn named_templates_use_the_default_one() {
        let json: Json =
            serde_json::from_str(r#"[{"name":"rag","template":"r"},{"name":"default","template":"d"}]"#)
                .unwrap();
        assert_eq!(template_text(Some(&json)).as_deref(), Some("d"));
    }
}
