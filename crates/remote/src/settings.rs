//! How a server is asked: the query of an [`Address`](crate::Address).

use std::{borrow::Cow, path::PathBuf, str::FromStr, time::Duration};

use spectemp_engine::PixelBudget;

use crate::Picture;

/// The most alternatives per token that hosted servers give.
const TOP_LOGPROBS: u32 = 20;

/// How a server is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How frames are sent: `image=jpeg|png`, `quality=1..100`.
    pub picture: Picture,
    /// The longest that one answer may take: `timeout_s`.
    pub timeout: Duration,
    /// How often a request is repeated after a passing fault: `retries`.
    pub retries: u32,
    /// Most requests at once: `concurrency`.
    pub concurrency: usize,
    /// Alternatives per token to ask for, 0 for no log-probabilities at all: `logprobs=N|off`.
    pub top_logprobs: u32,
    /// Sizes that the model can see, Qwen2.5-VL's by default: `multiple`, `min_pixels`, `max_pixels`.
    pub pixels: PixelBudget,
    /// Most tokens of a context, where the server does not tell: `context_tokens`.
    pub context_tokens: Option<u32>,
    /// Folder with `target.jinja` and `draft.jinja`, which replace the built-in prompts: `prompts`.
    pub prompts: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            picture: Picture::Jpeg { quality: 90 },
            timeout: Duration::from_secs(600),
            retries: 4,
            concurrency: 8,
            top_logprobs: TOP_LOGPROBS,
            pixels: PixelBudget { min_pixels: 3136, max_pixels: 12_845_056, multiple: 28 },
            context_tokens: None,
            prompts: None,
        }
    }
}

impl Settings {
    /// Reads the pairs of a query.
    pub(crate) fn parse<'q>(
        pairs: impl Iterator<Item = (Cow<'q, str>, Cow<'q, str>)>,
    ) -> Result<Self, String> {
        let mut settings = Self::default();
        let mut quality = None;
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            match name {
                "image" => settings.picture = picture(value)?,
                "quality" => quality = Some(number(name, value, 1, 100)?),
                "timeout_s" => settings.timeout = Duration::from_secs(number(name, value, 1, 86_400)?),
                "retries" => settings.retries = number(name, value, 0, 100)?,
                "concurrency" => settings.concurrency = number(name, value, 1, 10_000)?,
                "logprobs" if value == "off" => settings.top_logprobs = 0,
                "logprobs" => settings.top_logprobs = number(name, value, 1, 1000)?,
                "multiple" => settings.pixels.multiple = number(name, value, 1, 1024)?,
                "min_pixels" => settings.pixels.min_pixels = number(name, value, 1, u32::MAX)?,
                "max_pixels" => settings.pixels.max_pixels = number(name, value, 1, u32::MAX)?,
                "context_tokens" => settings.context_tokens = Some(number(name, value, 1, u32::MAX)?),
                "prompts" => settings.prompts = Some(PathBuf::from(value)),
                _ => return Err(unknown(name)),
            }
        }
        match (&mut settings.picture, quality) {
            (Picture::Jpeg { quality }, Some(wanted)) => *quality = wanted,
            (Picture::Png, Some(_)) => return Err("quality is for image=jpeg: PNG loses nothing".to_owned()),
            (_, None) => {}
        }
        if settings.pixels.min_pixels > settings.pixels.max_pixels {
            return Err("min_pixels is over max_pixels".to_owned());
        }
        Ok(settings)
    }
}

fn picture(value: &str) -> Result<Picture, String> {
    match value {
        "jpeg" => Ok(Settings::default().picture),
        "png" => Ok(Picture::Png),
        _ => Err(format!("image is {value:?}: use jpeg or png")),
    }
}

fn number<T: FromStr + PartialOrd + std::fmt::Display>(
    name: &str,
    value: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    let number = value.parse::<T>().ok().filter(|number| *number >= least && *number <= most);
    number.ok_or_else(|| format!("{name} is {value:?}: give a whole number from {least} to {most}"))
}

fn unknown(name: &str) -> String {
    format!(
        "unknown setting {name:?}: use image, quality, timeout_s, retries, concurrency, logprobs, multiple, \
         min_pixels, max_pixels, context_tokens or prompts"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<Settings, String> {
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Settings::parse(pairs.map(|(name, value)| (Cow::from(name), Cow::from(value))))
    }

    #[test]
    fn every_setting_is_read() {
        let settings = parse(
            "image=jpeg&quality=75&timeout_s=9&retries=0&concurrency=2&logprobs=off&multiple=32&min_pixels=1024\
             &max_pixels=2048&context_tokens=4096&prompts=p",
        )
        .unwrap();
        let expected = Settings {
            picture: Picture::Jpeg { quality: 75 },
            timeout: Duration::from_secs(9),
            retries: 0,
            concurrency: 2,
            top_logprobs: 0,
            pixels: PixelBudget { min_pixels: 1024, max_pixels: 2048, multiple: 32 },
            context_tokens: Some(4096),
            prompts: Some(PathBuf::from("p")),
        };
        assert_eq!(settings, expected);
        assert_eq!(parse("quality=40").unwrap().picture, Picture::Jpeg { quality: 40 });
        assert_eq!(parse("logprobs=5").unwrap().top_logprobs, 5);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, named) in [
            ("image=webp", "webp"),
            ("quality=0", "quality"),
            ("image=png&quality=3", "quality"),
            ("timeout_s=0", "timeout_s"),
            ("concurrency=0", "concurrency"),
            ("logprobs=none", "logprobs"),
            ("min_pixels=10&max_pixels=5", "min_pixels"),
            ("api_key=secret", "unknown setting \"api_key\""),
        ] {
            let said = parse(query).unwrap_err();
            assert!(said.contains(named), "{query}: {said}");
        }
    }
}
