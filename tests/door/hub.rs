//! The hub's cache, as its own tools and users' settings leave it.

use super::run_file;
use crate::program::mini;
use std::fs;
use std::process::Command;

#[test]
fn the_hub_s_cache_is_where_its_own_tools_look() {
    let folder = tempfile::tempdir().unwrap();
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let repository = folder.path().join("hub/models--me--mini");
    let snapshot = repository.join("snapshots").join(commit);
    for place in [&snapshot, &repository.join("refs/refs/pr")] {
        fs::create_dir_all(place).unwrap();
    }
    for name in ["refs/step20", "refs/refs/pr/1"] {
        fs::write(repository.join(name), commit).unwrap();
    }
    let source = mini().join("standard/model/step2400");
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), snapshot.join(entry.file_name())).unwrap();
    }
    let run = |model: &str, variable: &str, value: &str| {
        let path = run_file(folder.path(), "", model);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"scripted\"", "\"gpt-neox\"")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .args(["run", path.to_str().unwrap(), "--only", "plan", "--fresh"])
            .current_dir(folder.path())
            .env_remove("HF_HUB_CACHE")
            .env_remove("HF_HOME")
            .env("HOME", folder.path())
            .env(variable, value)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let whole = folder.path().join("hub");
    let cases = [
        (
            "hf://me/mini@step{checkpoint}",
            "HUGGINGFACE_HUB_CACHE",
            whole.to_str().unwrap(),
        ),
        ("hf://me/mini@step{checkpoint}", "HF_HUB_CACHE", "~/hub"),
        (
            "hf://me/mini@step{checkpoint}",
            "HF_HUB_CACHE",
            "${HOME}/hub",
        ),
        ("hf://me/mini@step{checkpoint}", "HF_HOME", "$HOME"),
        ("hf://me/mini@refs/pr/1", "HF_HUB_CACHE", "$HOME/hub"),
        ("hf://me/mini@refs%2Fpr%2F1", "HF_HUB_CACHE", "$HOME/hub"),
    ];
    for (place, variable, value) in cases {
        let (code, stderr) = run(&format!("folder = '{place}'"), variable, value);
        assert_eq!(code, Some(0), "{place} {variable}={value}: {stderr}");
    }
    // An interrupted download.
    fs::remove_file(snapshot.join("model.safetensors")).unwrap();
    let (code, stderr) = run(
        "folder = 'hf://me/mini@step{checkpoint}'",
        "HF_HUB_CACHE",
        "~/hub",
    );
    assert_eq!(code, Some(1), "{stderr}");
    for text in [
        "@step20/model.safetensors` is not in",
        "hf download me/mini --revision step20",
    ] {
        assert!(stderr.contains(text), "{stderr}");
    }
    let (code, stderr) = run(
        "folder = 'hf://me/mini@../../step{checkpoint}'",
        "HF_HUB_CACHE",
        "~/hub",
    );
    assert_eq!(code, Some(2), "{stderr}");
}
