//! Where `huggingface_hub` keeps its cache, by the environment (its `constants.py`).

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// The folder of the cache.
pub(super) fn cache_folder() -> PathBuf {
    folder(&|name| env::var_os(name))
}

/// The same with the variables that `variable` gives: `HF_HUB_CACHE` before its old name
/// `HUGGINGFACE_HUB_CACHE`, then `HF_HOME`, then `XDG_CACHE_HOME`, then the home folder.
fn folder(variable: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let expanded = |name: &str| set(name).map(|value| expand(value, variable));
    if let Some(cache) = expanded("HF_HUB_CACHE").or_else(|| expanded("HUGGINGFACE_HUB_CACHE")) {
        return cache;
    }
    if let Some(home) = expanded("HF_HOME") {
        return home.join("hub");
    }
    let cache = expanded("XDG_CACHE_HOME");
    let cache = cache.unwrap_or_else(|| expand("~/.cache".into(), variable));
    cache.join("huggingface/hub")
}

/// `~` at the beginning, `$NAME` and `${NAME}`, as Python's `os.path.expanduser` and `expandvars`
/// do: a variable that is not set stays as it is written.
fn expand(text: OsString, variable: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let text = match text.into_string() {
        Ok(text) => text,
        // Not UTF-8: it is taken as it is.
        Err(text) => return text.into(),
    };
    let mut expanded = OsString::new();
    let mut rest = text.as_str();
    let home = variable("HOME").filter(|home| !home.is_empty());
    if let (Some(home), Some(below)) = (home, text.strip_prefix('~'))
        && (below.is_empty() || below.starts_with('/'))
    {
        expanded.push(home);
        rest = below;
    }
    while let Some(at) = rest.find('$') {
        expanded.push(&rest[..at]);
        rest = &rest[at..];
        let (name, len) = name_of(rest);
        match name.filter(|name| !name.is_empty()).and_then(variable) {
            Some(value) => expanded.push(value),
            None => expanded.push(&rest[..len]),
        }
        rest = &rest[len..];
    }
    expanded.push(rest);
    PathBuf::from(expanded)
}

/// The variable that a text which begins with `$` names, and the bytes that it takes.
fn name_of(text: &str) -> (Option<&str>, usize) {
    let after = &text[1..];
    if let Some(inner) = after.strip_prefix('{') {
        return match inner.find('}') {
            Some(end) => (inner.get(..end), end + 3),
            None => (None, 2),
        };
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let len = after.find(|c| !fits(c)).unwrap_or(after.len());
    (after.get(..len), len + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_huggingface_hub_looks() {
        // By huggingface_hub 2.4 with the same variables: `python -c "from huggingface_hub import
        // constants; print(constants.HF_HUB_CACHE)"`.
        let cases: [(&[(&str, &str)], &str); 12] = [
            (&[], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "~/x")], "/home/me/x/huggingface/hub"),
            (
                &[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")],
                "/home/me/hf/hub",
            ),
            (
                &[("HF_HOME", "$SCRATCH/hf"), ("SCRATCH", "/s")],
                "/s/hf/hub",
            ),
            (
                &[("HF_HOME", "${SCRATCH}x/hf"), ("SCRATCH", "/s")],
                "/sx/hf/hub",
            ),
            (
                &[("HF_HOME", "/a/$NOT_SET/${NOR_THIS}/b")],
                "/a/$NOT_SET/${NOR_THIS}/b/hub",
            ),
            (
                &[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")],
                "/old",
            ),
            (
                &[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")],
                "/new",
            ),
            (&[("HF_HUB_CACHE", "$HOME/hub")], "/home/me/hub"),
            (&[("HF_HUB_CACHE", "~"), ("HF_HOME", "/h")], "/home/me"),
            (&[("HF_HUB_CACHE", "/a~b/$/${/é")], "/a~b/$/${/é"),
        ];
        for (variables, expected) in cases {
            let variable = |name: &str| {
                let mut all = variables.iter().chain(&[("HOME", "/home/me")]);
                all.find(|(known, _)| *known == name)
                    .map(|(_, value)| OsString::from(value))
            };
            assert_eq!(folder(&variable), PathBuf::from(expected), "{variables:?}");
        }
    }
}
