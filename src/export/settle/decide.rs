//! What becomes of a settings key, by what the table says and what KV holds. Pure.
//!
//! | items that ask for the key | KV holds | then |
//! | --- | --- | --- |
//! | one or more, and the one that it is for (that KV's value names, else the first) can't be exported | anything | stays |
//! | one or more, and the read after the pass contradicts it about that one | anything | looked at again |
//! | one or more, and the API key of that one is unavailable | anything | undecided: stays, and the record fails |
//! | one or more | anything | written, from the table, for that one |
//! | none | a value naming an index that is the target of an active alias and has no item, or the key is named as `shop_id` by a write alias | stays, with a warning |
//! | none | a value naming an index whose item can't be exported | stays |
//! | none | a value naming an index with an item, and the read after the pass contradicts it about that one | looked at again |
//! | none | a value naming an index whose item's API key is unavailable | undecided: that item may yet be rejected, and then it keeps the key |
//! | none | nothing, where the key is known to have been written for a removed index | as if a value named that index: KV's answer may be a minute old |
//! | none | nothing else, or a stranger's value | left alone |
//! | none | a value naming any other index | deleted |

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::table_view::{Held, TableView};
use crate::export::api_keys::{ApiKeyUnavailable, Exportable, NotExportable};
use crate::index::IndexRef;
use crate::item::{ItemKey, Rejection};
use crate::kv::{Entry, StoredValue};

#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Write(IndexRef, Rc<Entry>),
    /// Stays: the active aliases of these items point at what it holds.
    Withhold(BTreeSet<ItemKey>),
    /// Stays: the item it is for, or that its value names, can't be exported.
    KeepFor(IndexRef, Rejection),
    /// Deleted; what it holds is known where KV told it.
    Delete(Option<StoredValue>),
    /// Nothing of ours is there, and nobody asks for it.
    LeaveAlone,
    /// The table changed while it was read: to be looked at again.
    LookAgain,
    /// Can't be decided: the API key is unavailable of the item that asks for the key, or that its value
    /// names.
    Undecided(ApiKeyUnavailable),
}

/// An item that decisions depend on, read whole.
#[derive(Debug, Clone)]
pub struct ItemNow {
    pub exportable: Result<Exportable, Rejection>,
    pub entry: Result<Rc<Entry>, NotExportable>,
}

impl ItemNow {
    pub fn asks_for(&self, key: &str) -> bool {
        self.exportable.as_ref().is_ok_and(|index| index.settings.asks_for(key))
    }
}

/// Decides for one key, by the items that the table had when they were read after the pass.
pub fn decide(
    key: &str,
    held: &Held,
    table: &TableView,
    items: &BTreeMap<IndexRef, ItemNow>,
) -> Decision {
    if let Some(index) = table.claimant(key, held) {
        return by_item(key, index, items.get(index), true);
    }
    let protectors: BTreeSet<ItemKey> =
        held.named.iter().flat_map(|named| table.protectors(key, named)).collect();
    if !protectors.is_empty() {
        return Decision::Withhold(protectors);
    }
    let named = held.named.iter().map(|named| &named.index).filter(|index| table.has_item(index));
    let mut by_item = named.map(|index| by_item(key, index, items.get(index), false));
    // An item that can be exported and does not ask for the key has other keys.
    if let Some(kept) = by_item.find(|decision| !matches!(decision, Decision::Write(..))) {
        return kept;
    }
    match held.named.is_empty() {
        true => Decision::LeaveAlone,
        false => Decision::Delete(held.stored.clone()),
    }
}

/// What an item says of a key that it asks for or not, as the pass saw it.
fn by_item(key: &str, index: &IndexRef, item: Option<&ItemNow>, asks: bool) -> Decision {
    let Some(item) = item else { return Decision::LookAgain };
    match &item.entry {
        Err(NotExportable::Rejected(rejection)) => {
            Decision::KeepFor(index.clone(), rejection.clone())
        }
        _ if item.asks_for(key) != asks => Decision::LookAgain,
        Err(NotExportable::Unavailable(error)) => Decision::Undecided(error.clone()),
        Ok(entry) => Decision::Write(index.clone(), Rc::clone(entry)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table_view::Named;
    use super::*;
    use crate::export::api_keys::WhyNoApiKey;
    use crate::export::fakes::Fakes;
    use crate::item::Item;
    use crate::kv::{Source, Stamp};
    use crate::ports::{ApiKeyError, Cause};
    use serde_json::{Value, json};

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("a", name).unwrap()
    }

    /// What KV holds: a value that names an index, and perhaps a shop id.
    fn holds(name: &str, shop_id: Option<&str>) -> Held {
        let mut value = json!({"system_account_id": "a", "index_name": name});
        if let Some(shop_id) = shop_id {
            value["shop_id"] = json!(shop_id);
        }
        Held::new(StoredValue { value: value.to_string(), metadata: None }, "prod")
    }

    const NOTHING: Held = Held { stored: None, named: BTreeSet::new() };

    /// What KV holds where it answers nothing under a key that was written for this index.
    fn nothing_but_written_for(name: &str, shop_ids: &[&str]) -> Held {
        let shop_ids = shop_ids.iter().map(|shop_id| (*shop_id).to_owned()).collect();
        let named = BTreeSet::from([Named { index: index(name), shop_ids }]);
        Held { stored: None, named }
    }

    fn withheld_for(name: &str) -> Decision {
        Decision::Withhold(BTreeSet::from([ItemKey::of_index(&index(name))]))
    }

    fn entry(name: &str) -> Rc<Entry> {
        let stamp = Stamp {
            exported_at: "t".into(),
            source: Source::Stream,
            environment: "prod".into(),
            changed_at: None,
        };
        Rc::new(Entry::new("value", &index(name), &stamp))
    }

    fn unavailable() -> ApiKeyUnavailable {
        let service = ApiKeyError::Refused(Cause::new("down"));
        ApiKeyUnavailable { cell: "c".into(), why: WhyNoApiKey::NotInKv(service) }
    }

    /// A key, what it holds, and the table's items as name and further attributes.
    struct Case {
        key: &'static str,
        held: Held,
        table: Vec<(&'static str, Value)>,
        items: Vec<(&'static str, ItemNow)>,
    }

    impl Case {
        fn decide(self) -> Decision {
            let held = BTreeMap::from([(self.key.to_owned(), self.held.clone())]);
            let mut table = TableView::for_keys(&held);
            for (name, more) in self.table {
                let key = ItemKey::of_index(&index(name));
                let mut item = json!({"pk": {"S": key.pk}, "sk": {"S": key.sk}});
                item.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let json = serde_json::value::to_raw_value(&item).unwrap();
                let (key, item) = Item::parse(json).unwrap();
                table.add(&key, &item);
            }
            let items = self.items.into_iter().map(|(name, item)| (index(name), item)).collect();
            decide(self.key, &self.held, &table, &items)
        }
    }

    /// An item that asks for this shop id.
    fn exportable(name: &str, shop_id: &str) -> ItemNow {
        let exportable = Ok(Fakes::new().exportable(name, &shop(shop_id)));
        ItemNow { exportable, entry: Ok(entry(name)) }
    }

    fn without_api_key(name: &str, shop_id: &str) -> ItemNow {
        let entry = Err(NotExportable::Unavailable(unavailable()));
        ItemNow { entry, ..exportable(name, shop_id) }
    }

    fn rejected() -> ItemNow {
        let rejection = Rejection::new("index_endpoint", "is required");
        ItemNow { exportable: Err(rejection.clone()), entry: Err(rejection.into()) }
    }

    fn kept_for_item(name: &str) -> Decision {
        let rejection = Rejection::new("index_endpoint", "is required");
        Decision::KeepFor(index(name), rejection)
    }

    fn written_for(name: &str) -> Decision {
        Decision::Write(index(name), entry(name))
    }

    fn shop(shop_id: &str) -> Value {
        json!({"shop_id": {"S": shop_id}})
    }

    fn read_alias(index_id: &str) -> Value {
        json!({"read_alias": {"S": index_id}})
    }

    #[test]
    fn an_item_that_asks_for_the_key_gets_it_whatever_kv_holds() {
        for held in [NOTHING, holds("other", None), holds("i", Some("s"))] {
            let table = vec![("i", shop("s"))];
            let items = vec![("i", exportable("i", "s"))];
            assert_eq!(Case { key: "s", held, table, items }.decide(), written_for("i"));
        }
    }

    #[test]
    fn of_several_that_ask_the_one_that_kv_names_has_the_key_else_the_first() {
        for (held, claimant) in [(holds("j", None), "j"), (holds("gone", None), "i")] {
            let table = vec![("j", shop("s")), ("i", shop("s"))];
            let items = vec![(claimant, exportable(claimant, "s"))];
            assert_eq!(Case { key: "s", held, table, items }.decide(), written_for(claimant));
        }
    }

    #[test]
    fn an_item_that_asks_but_cannot_be_exported_keeps_the_key_as_it_is() {
        for held in [NOTHING, holds("gone", None)] {
            let table = vec![("i", shop("s")), ("j", shop("s"))];
            let items = vec![("i", rejected())];
            assert_eq!(Case { key: "s", held, table, items }.decide(), kept_for_item("i"));
        }
    }

    #[test]
    fn without_its_api_key_an_item_leaves_the_key_undecided() {
        let items = vec![("i", without_api_key("i", "s"))];
        let case = Case { key: "s", held: NOTHING, table: vec![("i", shop("s"))], items };
        assert_eq!(case.decide(), Decision::Undecided(unavailable()));
    }

    #[test]
    fn a_value_that_names_an_item_without_its_api_key_leaves_the_key_undecided() {
        let case = Case {
            key: "s-old",
            held: holds("moved", Some("s-old")),
            table: vec![("moved", shop("s-new"))],
            items: vec![("moved", without_api_key("moved", "s-new"))],
        };
        assert_eq!(case.decide(), Decision::Undecided(unavailable()));
    }

    #[test]
    fn a_target_of_an_active_alias_that_has_no_item_stays() {
        let held = holds("old", Some("s"));
        let by_shop_id =
            json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [{"M": shop("s")}]}}}});
        for pointer in [read_alias("a-old"), by_shop_id] {
            let table = vec![("i", pointer)];
            let case = Case { key: "a-old", held: held.clone(), table, items: vec![] };
            assert_eq!(case.decide(), withheld_for("i"));
        }
    }

    #[test]
    fn a_target_of_an_active_alias_that_has_an_item_is_served_by_that_items_keys() {
        let case = Case {
            key: "s-old",
            held: holds("moved", Some("s-old")),
            table: vec![("i", read_alias("a-moved")), ("moved", shop("s-new"))],
            items: vec![("moved", exportable("moved", "s-new"))],
        };
        assert!(matches!(case.decide(), Decision::Delete(_)));
    }

    #[test]
    fn a_key_that_a_write_alias_names_as_shop_id_stays_even_if_its_index_has_an_item() {
        let names_it = json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [{"M": shop("s-old")}]}}}});
        let case = Case {
            key: "s-old",
            held: holds("moved", Some("s-old")),
            table: vec![("i", names_it), ("moved", shop("s-new"))],
            items: vec![("moved", exportable("moved", "s-new"))],
        };
        assert_eq!(case.decide(), withheld_for("i"));
    }

    #[test]
    fn an_alias_to_itself_does_not_count() {
        let names_itself = json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [{"M": shop("s-old")}]}}},
                "shop_id": {"S": "s-new"}});
        let case = Case {
            key: "s-old",
            held: holds("moved", Some("s-old")),
            table: vec![("moved", names_itself)],
            items: vec![("moved", exportable("moved", "s-new"))],
        };
        assert!(matches!(case.decide(), Decision::Delete(_)));
    }

    #[test]
    fn a_value_that_names_an_item_which_cannot_be_exported_stays() {
        let case = Case {
            key: "s-old",
            held: holds("moved", Some("s-old")),
            table: vec![("moved", shop("s-new"))],
            items: vec![("moved", rejected())],
        };
        assert_eq!(case.decide(), kept_for_item("moved"));
    }

    #[test]
    fn a_value_that_names_any_other_index_is_deleted() {
        let held = holds("gone", None);
        let stored = held.stored.clone();
        let case = Case { key: "s", held, table: vec![("i", shop("t"))], items: vec![] };
        assert_eq!(case.decide(), Decision::Delete(stored));
    }

    #[test]
    fn nothing_and_a_strangers_value_are_left_alone_whoever_points_at_them() {
        let stranger = StoredValue { value: r#"{"theirs":1}"#.into(), metadata: None };
        for held in [NOTHING, Held::new(stranger, "prod")] {
            let table = vec![("i", read_alias("a-old"))];
            let case = Case { key: "a-old", held, table, items: vec![] };
            assert_eq!(case.decide(), Decision::LeaveAlone);
        }
    }

    #[test]
    fn what_the_pass_and_the_read_after_it_contradict_each_other_on_is_looked_at_again() {
        for items in [vec![], vec![("i", exportable("i", "t"))]] {
            let case = Case { key: "s", held: NOTHING, table: vec![("i", shop("s"))], items };
            assert_eq!(case.decide(), Decision::LookAgain, "of the item that asks for it");
        }
        for items in [vec![], vec![("moved", exportable("moved", "s-old"))]] {
            let table = vec![("moved", shop("s-new"))];
            let case = Case { key: "s-old", held: holds("moved", Some("s-old")), table, items };
            assert_eq!(case.decide(), Decision::LookAgain, "of the item that its value names");
        }
    }

    #[test]
    fn another_environments_value_is_a_strangers_whatever_it_names() {
        let metadata =
            json!({"system_account_id": "a", "index_name": "gone", "environment": "test"});
        let stored = StoredValue {
            value: json!({"system_account_id": "a", "index_name": "gone"}).to_string(),
            metadata: crate::json::Json::of(&metadata).ok(),
        };
        for (environment, decision) in
            [("prod", Decision::LeaveAlone), ("test", Decision::Delete(Some(stored.clone())))]
        {
            let held = Held::new(stored.clone(), environment);
            assert_eq!(Case { key: "s", held, table: vec![], items: vec![] }.decide(), decision);
        }
    }

    #[test]
    fn where_kv_answers_nothing_a_key_is_taken_to_hold_what_it_was_written_for() {
        let held = || nothing_but_written_for("gone", &["s"]);
        let deleted = Case { key: "a-gone", held: held(), table: vec![], items: vec![] };
        assert_eq!(deleted.decide(), Decision::Delete(None));
        let by_shop_id =
            json!({"add_docs_config": {"M": {"index_write_aliases": {"L": [{"M": shop("s")}]}}}});
        for pointer in [read_alias("a-gone"), by_shop_id] {
            let table = vec![("i", pointer)];
            let case = Case { key: "a-gone", held: held(), table, items: vec![] };
            assert_eq!(case.decide(), withheld_for("i"));
        }
        let case = Case {
            key: "s",
            held: held(),
            table: vec![("gone", shop("t"))],
            items: vec![("gone", rejected())],
        };
        assert_eq!(case.decide(), kept_for_item("gone"));
    }

    /// An item as the pass over the table saw it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Seen {
        Absent,
        AsksForTheKey,
        AsksForAnother,
    }

    const SEEN: [Seen; 3] = [Seen::Absent, Seen::AsksForTheKey, Seen::AsksForAnother];

    /// The same item as it was read after that: asking for the key or not, and with an entry or without.
    fn read_later(name: &'static str) -> [Option<ItemNow>; 6] {
        [
            None,
            Some(exportable(name, "s")),
            Some(exportable(name, "t")),
            Some(without_api_key(name, "s")),
            Some(without_api_key(name, "t")),
            Some(rejected()),
        ]
    }

    fn held_cases() -> [(Held, Option<&'static str>); 6] {
        let stranger = StoredValue { value: r#"{"theirs":1}"#.into(), metadata: None };
        [
            (NOTHING, None),
            (Held::new(stranger, "prod"), None),
            (nothing_but_written_for("i", &["s"]), Some("i")),
            (holds("i", Some("s")), Some("i")),
            (holds("j", None), Some("j")),
            (holds("gone", None), Some("gone")),
        ]
    }

    /// All decisions about key `s` with two items, and a third one that points at them.
    #[test]
    fn over_the_whole_domain_nothing_that_is_asked_for_protected_or_unknown_is_deleted() {
        let names_s = json!({"index_write_aliases": {"L": [{"M": shop("s")}]}});
        let names_s = json!({"add_docs_config": {"M": names_s}});
        let pointers = [("none", json!({})), ("index", read_alias("a-i")), ("key", names_s)];
        let read_later = ["i", "j"].map(read_later);
        let mut cases = 0;
        let items = SEEN.into_iter().flat_map(|i| SEEN.map(|j| (i, j)));
        for ((seen_i, seen_j), (points_at, pointer)) in
            items.flat_map(|items| pointers.clone().map(|pointer| (items, pointer)))
        {
            for (i, j, (held, named)) in
                (0..6).flat_map(|i| (0..6).flat_map(move |j| held_cases().map(|held| (i, j, held))))
            {
                let mut table = vec![("p", pointer.clone())];
                for (name, seen) in [("i", seen_i), ("j", seen_j)] {
                    let shop_id = if seen == Seen::AsksForTheKey { "s" } else { "t" };
                    table.extend((seen != Seen::Absent).then(|| (name, shop(shop_id))));
                }
                let now_i = read_later[0][i].clone().map(|now| ("i", now));
                let now_j = read_later[1][j].clone().map(|now| ("j", now));
                let items = now_i.into_iter().chain(now_j).collect();
                let is_ours = held.stored.is_some();
                let case = format!("{seen_i:?} {seen_j:?} {points_at} {i} {j} {held:?}");

                let decision = Case { key: "s", held, table, items }.decide();

                let seen = |name| match name {
                    "i" => (seen_i, i),
                    "j" => (seen_j, j),
                    _ => (Seen::Absent, 0),
                };
                let claimants: Vec<&str> = ["i", "j"]
                    .into_iter()
                    .filter(|name| seen(name).0 == Seen::AsksForTheKey)
                    .collect();
                let is_its = |decision: &Decision, name: &str| match decision {
                    Decision::Write(of, _) | Decision::KeepFor(of, _) => *of == index(name),
                    _ => true,
                };
                let owner = named.filter(|name| claimants.contains(name));
                let owner = owner.or(claimants.first().copied());
                if let Some(owner) = owner {
                    let expected = match seen(owner).1 {
                        1 => matches!(decision, Decision::Write(..)),
                        3 => matches!(decision, Decision::Undecided(_)),
                        5 => matches!(decision, Decision::KeepFor(..)),
                        _ => decision == Decision::LookAgain,
                    };
                    assert!(expected && is_its(&decision, owner), "{case}: {decision:?}");
                } else if let Some(named) = named {
                    let (seen, now) = seen(named);
                    let is_protected = points_at == "key"
                        || (points_at == "index" && named == "i" && seen == Seen::Absent);
                    let expected = match (is_protected, seen, now) {
                        (true, ..) => decision == withheld_for("p"),
                        (false, Seen::Absent, _) | (false, _, 2) => {
                            matches!(&decision, Decision::Delete(was) if was.is_some() == is_ours)
                        }
                        (false, _, 4) => matches!(decision, Decision::Undecided(_)),
                        (false, _, 5) => matches!(decision, Decision::KeepFor(..)),
                        (false, ..) => decision == Decision::LookAgain,
                    };
                    assert!(expected && is_its(&decision, named), "{case}: {decision:?}");
                } else {
                    assert_eq!(decision, Decision::LeaveAlone, "{case}");
                }
                cases += 1;
            }
        }
        assert_eq!(cases, 9 * 3 * 36 * 6);
    }
}
