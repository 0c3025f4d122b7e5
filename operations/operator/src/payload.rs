//! The payloads of the commands.

use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::given::{About, Given};

pub fn explain(given: &Given) -> Result<Value, Failure> {
    let about = match given.about("explain")? {
        About::Key(key) => json!({"key": key}),
        About::Index(account, index) => json!({"system_account_id": account, "index_name": index}),
    };
    Ok(json!({"explain": about}))
}

pub fn re_export(given: &Given) -> Result<Value, Failure> {
    let Some((account, index)) = given.index() else {
        return Err(Failure::usage("re-export needs ACCOUNT and INDEX"));
    };
    let query_configs = given.switch("QUERY_CONFIGS")?;
    Ok(json!({
        "system_account_id": account, "index_name": index,
        "include_query_configs": query_configs,
    }))
}

pub fn reconcile(given: &Given) -> Result<Map<String, Value>, Failure> {
    let mut fields = Map::new();
    let (apply, preview) = (given.switch("APPLY")?, given.switch("PREVIEW")?);
    if preview {
        fields.insert("preview".to_owned(), true.into());
    }
    if apply || !preview {
        fields.insert("apply".to_owned(), apply.into());
    }
    if let Some(account) = given.text("ACCOUNT") {
        fields.insert("system_account_id".to_owned(), account.into());
    }
    for (name, field) in [("DELETE_UP_TO", "delete_up_to"), ("REWRITE_UP_TO", "rewrite_up_to")] {
        if let Some(number) = given.number(name)? {
            fields.insert(field.to_owned(), number.into());
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["ACCOUNT", "APPLY", "PREVIEW", "DELETE_UP_TO"];

    #[test]
    fn a_reconcile_audits_unless_it_is_to_repair_or_to_preview() {
        for (args, fields) in [
            (vec![], json!({"apply": false})),
            (vec!["APPLY=true", "DELETE_UP_TO=7"], json!({"apply": true, "delete_up_to": 7})),
            (vec!["PREVIEW=true", "ACCOUNT=a"], json!({"preview": true, "system_account_id": "a"})),
        ] {
            let given = Given::take(args.into_iter().map(str::to_owned), &NAMES).unwrap();
            assert_eq!(Value::Object(reconcile(&given).unwrap()), fields);
        }
        let unknown = Given::take(["APLY=true".to_owned()].into_iter(), &NAMES);
        assert!(matches!(unknown, Err(Failure::Usage(_))));
    }
}
