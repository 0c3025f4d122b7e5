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

    const NAMES: [&str; 7] =
        ["KEY", "ACCOUNT", "INDEX", "QUERY_CONFIGS", "APPLY", "PREVIEW", "DELETE_UP_TO"];

    fn given(args: &[&str]) -> Given {
        Given::take(args.iter().map(|arg| (*arg).to_owned()), &NAMES).unwrap()
    }

    #[test]
    fn what_is_given_arrives_whole_whatever_characters_it_holds() {
        let odd = "x'; touch pwned; echo '\"\\ $(touch pwned) =\u{1}";
        let args = [format!("KEY={odd}")];
        assert_eq!(explain(&given(&[&args[0]])), Ok(json!({"explain": {"key": odd}})));
        let args = [format!("ACCOUNT={odd}"), format!("INDEX={odd}")];
        let payload = re_export(&given(&[&args[0], &args[1], "QUERY_CONFIGS=true"])).unwrap();
        assert_eq!(payload["system_account_id"], odd);
        assert_eq!(
            (&payload["index_name"], &payload["include_query_configs"]),
            (&json!(odd), &json!(true))
        );
    }

    #[test]
    fn an_empty_value_counts_as_absent_and_an_index_needs_both_names() {
        assert!(explain(&given(&["KEY=", "ACCOUNT=a", "INDEX="])).is_err());
        assert!(re_export(&given(&["INDEX=i"])).is_err());
        let both = explain(&given(&["KEY=", "ACCOUNT=a", "INDEX=i"])).unwrap();
        assert_eq!(both, json!({"explain": {"system_account_id": "a", "index_name": "i"}}));
    }

    #[test]
    fn a_reconcile_audits_unless_it_is_to_repair_or_to_preview() {
        for (args, fields) in [
            (vec![], json!({"apply": false})),
            (vec!["APPLY=true", "DELETE_UP_TO=7"], json!({"apply": true, "delete_up_to": 7})),
            (vec!["PREVIEW=true", "ACCOUNT=a"], json!({"preview": true, "system_account_id": "a"})),
        ] {
            assert_eq!(Value::Object(reconcile(&given(&args)).unwrap()), fields);
        }
        for wrong in ["APPLY=yes", "DELETE_UP_TO=-1", "DELETE_UP_TO=x"] {
            assert!(reconcile(&given(&[wrong])).is_err(), "{wrong}");
        }
        let unknown = Given::take(["APLY=true".to_owned()].into_iter(), &NAMES);
        assert!(matches!(unknown, Err(Failure::Usage(_))));
    }
}
