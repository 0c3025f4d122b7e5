//! The verdict on a key, for removal, reconcile and explain alike. Pure.
//!
//! | items that ask for the key | KV holds | verdict |
//! | --- | --- | --- |
//! | any | another environment's value | conflicting |
//! | the item can't be exported | anything else | rejected |
//! | its API key is unavailable for now | anything else | failed |
//! | the item can be exported | nothing | missing |
//! | the item can be exported | its value, by digest | right |
//! | the item can be exported | anything else | stale |
//! | none | nothing, a stranger's or another environment's value | foreign |
//! | none | ours, and an active alias of an item other than the owner names the key, or its owner, which has no item | withheld |
//! | none | ours, and its owner's item can't be exported | rejected |
//! | none | ours, otherwise | orphaned |
//!
//! Of several items that ask for a key, its owner has it, else the first by account and index.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::index::{IndexRef, ItemRef};
use crate::item::{AliasTarget, ItemKey, Map, alias_targets, claimed_keys};
use crate::kv::{Digest, Metadata, Namespace, StoredValue};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Conflicting,
    Rejected,
    Failed,
    Missing,
    Right,
    Stale,
    Foreign,
    Withheld,
    Orphaned,
}

/// What KV holds under a key, from a listing or a read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Held {
    #[default]
    Nothing,
    Stranger,
    OtherEnvironment,
    Ours {
        owner: Rc<IndexRef>,
        /// The value's digest. `None` where the metadata has none, or one that is not the value's.
        digest: Option<Digest>,
    },
}

impl Held {
    pub fn listed(metadata: Option<&Metadata>, environment: &str) -> Self {
        match metadata {
            None => Self::Stranger,
            Some(metadata) if !metadata.is_of(environment) => Self::OtherEnvironment,
            Some(Metadata { index, digest, .. }) => {
                Self::Ours { owner: Rc::new(index.clone()), digest: *digest }
            }
        }
    }

    /// Returns what a read tells. A value without metadata is the predecessor's if it names an index.
    pub fn read(stored: Option<&StoredValue>, environment: &str) -> Self {
        let Some(stored) = stored else { return Self::Nothing };
        if stored.metadata.is_none() {
            let owner = stored.settings().map(|settings| Rc::new(settings.index));
            return owner.map_or(Self::Stranger, |owner| Self::Ours { owner, digest: None });
        }
        let mut held = Self::listed(stored.metadata().as_ref(), environment);
        if let Self::Ours { digest, .. } = &mut held {
            digest.take_if(|digest| *digest != Digest::of(stored.value.as_bytes()));
        }
        held
    }

    pub fn owner(&self) -> Option<&Rc<IndexRef>> {
        if let Self::Ours { owner, .. } = self { Some(owner) } else { None }
    }

    pub fn is_owned_by(&self, index: &IndexRef) -> bool {
        self.owner().is_some_and(|owner| **owner == *index)
    }
}

/// What an item asks a key to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    Value(Digest),
    /// Its value, which was not made because that takes an API key.
    Unmade,
    /// Nothing: it can't be exported.
    Rejected,
    /// A value that was not made: its API key is unavailable for now.
    Unavailable,
}

/// Returns the verdict on a key. `wants` is what the item that has the key asks it to hold. Where no item asks
/// for it, `owner` counts, which is what the owner's item asks its keys to hold, and whether an active alias
/// protects the key.
pub fn judge(
    wants: Option<Wants>,
    held: &Held,
    owner: Option<Wants>,
    is_protected: bool,
) -> Verdict {
    match (wants, held) {
        (Some(_), Held::OtherEnvironment) => Verdict::Conflicting,
        (Some(Wants::Rejected), _) => Verdict::Rejected,
        (Some(Wants::Unavailable), _) => Verdict::Failed,
        (Some(_), Held::Nothing) => Verdict::Missing,
        (Some(Wants::Value(wanted)), Held::Ours { digest: Some(digest), .. })
            if wanted == *digest =>
        {
            Verdict::Right
        }
        (Some(_), _) => Verdict::Stale,
        (None, Held::Nothing | Held::Stranger | Held::OtherEnvironment) => Verdict::Foreign,
        (None, Held::Ours { .. }) if is_protected => Verdict::Withheld,
        (None, Held::Ours { .. }) if owner == Some(Wants::Rejected) => Verdict::Rejected,
        (None, Held::Ours { .. }) => Verdict::Orphaned,
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KvKey {
    pub namespace: Namespace,
    pub name: String,
}

impl KvKey {
    /// Returns the key that follows from an item's own.
    pub fn of(item: &ItemRef) -> Self {
        Self { namespace: item.namespace(), name: item.kv_key() }
    }

    pub fn of_settings(name: impl Into<String>) -> Self {
        Self { namespace: Namespace::Settings, name: name.into() }
    }
}

/// The item that has a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub index: Rc<IndexRef>,
    /// Of a query config.
    pub query: Option<String>,
    pub wants: Wants,
}

impl Claim {
    pub fn item(&self) -> ItemRef {
        ItemRef { index: (*self.index).clone(), query: self.query.clone() }
    }

    fn bytes(&self) -> usize {
        CLAIM_BYTES + self.index.account.len() + self.query.as_ref().map_or(0, String::len)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    pub held: Held,
    /// The items that ask for the key. The first one has it.
    pub claims: Vec<Claim>,
}

impl Row {
    fn add(&mut self, claim: Claim) {
        let rank = |claim: &Claim| (!self.held.is_owned_by(&claim.index), claim.item());
        let is_first = self.claims.first().is_some_and(|first| rank(&claim) < rank(first));
        // Nearly all keys have one.
        self.claims.reserve_exact(1);
        self.claims.insert(if is_first { 0 } else { self.claims.len() }, claim);
    }

    /// Returns the item that has the key.
    pub fn claim(&self) -> Option<&Claim> {
        self.claims.first()
    }

    /// Returns about how much memory it takes with its key.
    fn bytes(&self, key: &KvKey) -> usize {
        let claims = self.claims.iter().map(Claim::bytes).sum::<usize>();
        ROW_BYTES + key.name.len() + claims
    }
}

/// Keys of the two namespaces, the settings first: from a key up to, and without, another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub from: KvKey,
    /// `None` is the end of both namespaces.
    pub to: Option<KvKey>,
    /// The one account whose items count.
    pub account: Option<String>,
}

impl Range {
    /// Returns a range without a key.
    pub fn empty() -> Self {
        Self { to: Some(KvKey::default()), ..Self::default() }
    }

    pub fn holds(&self, key: &KvKey) -> bool {
        *key >= self.from && self.to.as_ref().is_none_or(|to| key < to)
    }

    pub fn is_of(&self, account: &str) -> bool {
        self.account.as_deref().is_none_or(|only| only == account)
    }
}

/// What a pass over the table says of a set of keys: the items that ask for them, the items of their
/// owners, and the active aliases that protect them.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The range in which it knows all keys, including keys that KV lacks. Beyond it, the table knows only the keys
    /// that it was given.
    pub range: Range,
    pub rows: BTreeMap<KvKey, Row>,
    /// The indexes that own keys, with what their items want. `None` where there is no item.
    owners: BTreeMap<Rc<IndexRef>, Option<Wants>>,
    /// The items whose active aliases name a key, or the index id of an owner. All of these ids have an entry.
    pointers: BTreeMap<String, BTreeSet<ItemKey>>,
    /// Whether there is an index item at all.
    pub has_indexes: bool,
    /// About how much memory the table takes.
    pub bytes: usize,
    /// What the pointers take of it. A table that shrinks keeps them.
    pointer_bytes: usize,
}

/// What a row takes beside its names: a digest, and its part of a tree's node that is two thirds full.
const ROW_BYTES: usize = 180;

/// What a claim takes beside its names, and an owner or a pointer at most.
const CLAIM_BYTES: usize = 140;

impl Table {
    pub fn new(range: Range) -> Self {
        Self { range, ..Self::default() }
    }

    /// Notes what KV holds under a key, before the pass.
    pub fn hold(&mut self, key: KvKey, mut held: Held) {
        if let Held::Ours { owner, .. } = &mut held {
            *owner = self.share(owner);
            if !self.owners.contains_key(owner) {
                let index_id = owner.index_id();
                self.bytes += 2 * (CLAIM_BYTES + index_id.len());
                self.pointers.entry(index_id).or_default();
                self.owners.insert(Rc::clone(owner), None);
            }
        }
        self.row(key).held = held;
    }

    /// Returns the `Rc` that the keys of an owner share, or `index` itself if it owns none.
    fn share(&self, index: &Rc<IndexRef>) -> Rc<IndexRef> {
        Rc::clone(self.owners.get_key_value(index).map_or(index, |(owner, _)| owner))
    }

    /// Returns the row of a key. A key without one gets one.
    pub fn row(&mut self, key: KvKey) -> &mut Row {
        self.rows.entry(key).or_insert_with_key(|key| {
            self.bytes += ROW_BYTES + key.name.len();
            Row::default()
        })
    }

    /// Adds an item of the table, with what it asks its keys to hold.
    pub fn add(&mut self, key: &ItemKey, attributes: &Map, wants: Wants) {
        let item = key.item();
        if item.as_ref().is_none_or(|item| item.query.is_none()) {
            self.add_aliases(key, attributes);
        }
        let Some(item) = item else { return };
        let (namespace, names) = (item.namespace(), claimed_keys(&item, attributes));
        let ItemRef { index, query } = item;
        let index = self.share(&Rc::new(index));
        if query.is_none() {
            self.has_indexes = true;
            self.resolve_owner(&index, Some(wants));
        }
        for name in names {
            let key = KvKey { namespace, name };
            let is_asked_for = self.range.holds(&key) && self.range.is_of(&index.account);
            if is_asked_for || self.rows.contains_key(&key) {
                let claim = Claim { index: Rc::clone(&index), query: query.clone(), wants };
                self.bytes += claim.bytes();
                self.row(key).add(claim);
            }
        }
    }

    fn add_aliases(&mut self, key: &ItemKey, attributes: &Map) {
        for target in alias_targets(&key.pk, attributes) {
            let name = target.name();
            let kv_key = KvKey::of_settings(name);
            let has_row = self.rows.contains_key(&kv_key);
            if has_row || self.pointers.contains_key(name) {
                let pointers = self.pointers.entry(name.to_owned()).or_default();
                // Two are enough to know that one of them is not the owner's. People want more names.
                let most = if self.pointer_bytes < MAX_POINTER_BYTES { MAX_POINTERS } else { 2 };
                if pointers.len() < most && pointers.insert(key.clone()) {
                    let bytes = CLAIM_BYTES + name.len() + key.pk.len() + key.sk.len();
                    self.pointer_bytes += bytes;
                    self.bytes += bytes;
                }
            }
            let may_dangle = matches!(target, AliasTarget::IndexId(_)) && self.range.holds(&kv_key);
            if may_dangle && self.range.account.is_none() {
                self.row(kv_key);
            }
        }
    }

    /// Leaves the last keys of the range to another table, until this one takes no more than `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes && self.rows.len() > 1 {
            let Some((last, row)) = self.rows.pop_last() else { return };
            self.bytes = self.bytes.saturating_sub(row.bytes(&last));
            self.range.to = Some(last);
        }
    }

    /// Returns whether an index owns a key.
    pub fn is_owner(&self, index: &IndexRef) -> bool {
        self.owners.contains_key(index)
    }

    /// Notes what the item of an owner wants; `None` if it has no item. Ignores an index that owns no key.
    pub fn resolve_owner(&mut self, index: &IndexRef, item: Option<Wants>) {
        if let Some(owner) = self.owners.get_mut(index) {
            *owner = item;
        }
    }

    /// Returns whether KV holds a settings key that has to go.
    pub fn is_orphaned(&self, name: &str) -> bool {
        self.verdict(&KvKey::of_settings(name)) == Verdict::Orphaned
    }

    pub fn verdict(&self, key: &KvKey) -> Verdict {
        let Some(row) = self.rows.get(key) else { return Verdict::Foreign };
        let (held, wants) = (&row.held, row.claim().map(|claim| claim.wants));
        let owner = held.owner().and_then(|owner| self.owner_item(owner));
        let is_protected = wants.is_none() && !self.protectors(key).is_empty();
        judge(wants, held, owner, is_protected)
    }

    pub fn claim_of(&self, key: &KvKey) -> Option<&Claim> {
        self.rows.get(key)?.claim()
    }

    pub fn owner_of(&self, key: &KvKey) -> Option<&Rc<IndexRef>> {
        self.rows.get(key)?.held.owner()
    }

    /// Returns what the item of an owner wants, if there is one.
    pub fn owner_item(&self, index: &IndexRef) -> Option<Wants> {
        self.owners.get(index).copied().flatten()
    }

    /// Returns the items whose active aliases protect a key of ours that no item asks for.
    pub fn protectors(&self, key: &KvKey) -> BTreeSet<&ItemKey> {
        let Some(owner) = self.owner_of(key) else { return BTreeSet::new() };
        let mut protectors = self.pointers_at(&key.name, Some(owner));
        if self.owner_item(owner).is_none() {
            protectors.extend(self.pointers_at(&owner.index_id(), Some(owner)));
        }
        protectors
    }

    /// Returns the items whose active aliases name `name`, without the item of `index`.
    pub fn pointers_at(&self, name: &str, index: Option<&IndexRef>) -> BTreeSet<&ItemKey> {
        let own = index.map(|index| ItemRef::from(index.clone()).key());
        let pointers = self.pointers.get(name).into_iter().flatten();
        pointers.filter(|pointer| Some(*pointer) != own.as_ref()).collect()
    }

    /// Returns all items that ask for a key.
    pub fn claimants(&self, key: &KvKey) -> impl Iterator<Item = &Rc<IndexRef>> {
        let claims = self.rows.get(key).into_iter().flat_map(|row| &row.claims);
        claims.map(|claim| &claim.index)
    }

    /// Returns whether the items that ask for a key are noted: it lies in the range, or has a row.
    pub fn covers(&self, key: &KvKey) -> bool {
        self.range.holds(key) || self.rows.contains_key(key)
    }

    /// Returns the index ids of a range of all accounts that active aliases name and that have neither an item nor a
    /// key.
    pub fn dangling(&self) -> impl Iterator<Item = &String> {
        let rows = self.rows.iter();
        let rows = rows.filter(|(_, row)| row.held == Held::Nothing && row.claims.is_empty());
        rows.map(|(key, _)| &key.name)
    }
}

/// The most items that are kept as pointers at one name, while all pointers fit [`MAX_POINTER_BYTES`].
const MAX_POINTERS: usize = 100;
const MAX_POINTER_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{index, index_item, shop};
    use serde_json::json;

    fn ours(digest: Option<&str>) -> Held {
        let digest = digest.map(|value| Digest::of(value.as_bytes()));
        Held::Ours { owner: Rc::new(index("owner")), digest }
    }

    fn value(value: &str) -> Wants {
        Wants::Value(Digest::of(value.as_bytes()))
    }

    #[test]
    fn each_row_of_the_verdicts() {
        use Verdict::{Conflicting, Failed, Foreign, Missing, Orphaned, Rejected, Right};
        use Verdict::{Stale, Withheld};
        let (none, other, held) = (Held::Nothing, Held::OtherEnvironment, ours(Some("v")));
        let (unmade, rejected) = (Some(Wants::Unmade), Some(Wants::Rejected));
        let (asked, unavailable) = (Some(value("v")), Some(Wants::Unavailable));
        // What the owner's item wants, and whether an alias protects the key: both count where no item asks for it.
        let owners =
            [(None, false), (unmade, false), (rejected, false), (None, true), (rejected, true)];
        let unasked = [Orphaned, Orphaned, Rejected, Withheld, Withheld];
        for (name, wants, held, verdicts) in [
            ("another environment's", asked, &other, [Conflicting; 5]),
            ("another environment's, rejected", rejected, &other, [Conflicting; 5]),
            ("nothing, rejected", rejected, &none, [Rejected; 5]),
            ("ours, rejected", rejected, &held, [Rejected; 5]),
            ("nothing, no API key", unavailable, &none, [Failed; 5]),
            ("ours, no API key", unavailable, &held, [Failed; 5]),
            ("nothing", asked, &none, [Missing; 5]),
            ("its value", asked, &held, [Right; 5]),
            ("another value", asked, &ours(Some("w")), [Stale; 5]),
            ("ours without a digest", asked, &ours(None), [Stale; 5]),
            ("a stranger's", asked, &Held::Stranger, [Stale; 5]),
            ("ours, value not made", unmade, &held, [Stale; 5]),
            ("nothing, not asked for", None, &none, [Foreign; 5]),
            ("a stranger's, not asked for", None, &Held::Stranger, [Foreign; 5]),
            ("another environment's, not asked for", None, &other, [Foreign; 5]),
            ("ours, not asked for", None, &held, unasked),
        ] {
            let found = owners.map(|(owner, is_protected)| judge(wants, held, owner, is_protected));
            assert_eq!(found, verdicts, "{name}");
        }
    }

    #[test]
    fn a_contested_key_is_its_owners_else_the_first_ones() {
        let key = KvKey::of_settings("shop");
        for (order, expected) in [
            (&["b", "a"][..], "a"),
            (&["a", "owner", "z"], "owner"),
            (&["owner", "a", "z"], "owner"),
            (&["z", "a", "owner"], "owner"),
        ] {
            let mut table = Table::new(Range::empty());
            table.hold(key.clone(), ours(None));
            for (item_key, item) in order.iter().map(|name| index_item(name, &shop("shop"))) {
                table.add(&item_key, &item.attributes(), Wants::Unmade);
            }
            assert_eq!(table.claim_of(&key).unwrap().index.name, expected, "{order:?}");
            assert_eq!(table.claimants(&key).count(), order.len(), "{order:?}");
        }
    }

    /// A table for the range up to `to`, in which `a-listed` is listed.
    fn range(to: Option<&str>, account: Option<&str>) -> Table {
        let mut table = Table::new(Range {
            from: KvKey::default(),
            to: to.map(KvKey::of_settings),
            account: account.map(str::to_owned),
        });
        table.hold(KvKey::of_settings("a-listed"), ours(None));
        table
    }

    #[test]
    fn a_range_knows_what_items_ask_for_in_it_and_what_dangles() {
        let long = "l".repeat(511);
        let (unholdable, _) = index_item(&long, &json!({}));
        let targets = ["a-gone", "a-listed", "a-i", &format!("a-{long}"), "z-beyond"];
        let targets = targets.map(|name| json!({"M": {"index_id": {"S": name}}}));
        let doc_writes = json!({"M": {"enabled": {"BOOL": true}, "targets": {"L": targets}}});
        let item = json!({
            "shop_id": {"S": "z-shop"},
            "index_aliases": {"M": {"doc_writes": doc_writes}},
        });
        let (key, item) = index_item("i", &item);
        let keys = |table: &Table| -> Vec<String> {
            let dangling: Vec<_> = table.dangling().collect();
            let names = table.rows.keys().map(|key| &key.name);
            names.filter(|name| !dangling.contains(name)).cloned().collect()
        };
        let mut table = range(Some("m"), None);
        table.add(&key, &item.attributes(), Wants::Unmade);
        table.add(&unholdable, &Map::default(), Wants::Rejected);
        assert_eq!(keys(&table), ["a-i", "a-listed", &format!("a-{long}")]);
        assert_eq!(table.dangling().collect::<Vec<_>>(), ["a-gone"]);
        let mut table = range(None, Some("b"));
        table.add(&key, &item.attributes(), Wants::Unmade);
        assert_eq!(keys(&table), ["a-listed"], "another account's item adds no key");
    }

    #[test]
    fn a_table_that_is_full_leaves_its_last_keys_to_another() {
        let mut table = range(None, None);
        for name in ["b", "c", "d"] {
            table.hold(KvKey::of_settings(name), Held::Stranger);
        }
        table.shrink(table.bytes - 1);
        assert_eq!(table.rows.len(), 3);
        assert!(!table.covers(&KvKey::of_settings("d")), "the range ends before it");
        assert!(table.covers(&KvKey::of_settings("cc")));
        table.shrink(0);
        assert_eq!(table.rows.len(), 1, "a run has at least one key to get done");
    }

    #[test]
    fn a_read_value_is_owned_by_its_metadata_and_without_any_by_what_it_names() {
        let named = r#"{"system_account_id":"a","index_name":"v"}"#;
        let by_m = |environment: Option<&str>| {
            let digest = Digest::of(b"another value");
            Some(json!({
                "system_account_id": "a", "index_name": "m", "environment": environment, "digest": digest,
            }))
        };
        for (name, value, metadata, owner) in [
            ("metadata", named, by_m(Some("prod")), Some("m")),
            ("metadata from before environments", named, by_m(None), Some("m")),
            ("no metadata", named, None, Some("v")),
            ("no metadata, names nothing", "{}", None, None),
            ("metadata of nobody", named, Some(json!({"x": 1})), None),
            ("another environment's", named, by_m(Some("dev")), None),
        ] {
            let metadata = metadata.map(|it| crate::json::Json::of(&it).unwrap());
            let stored = StoredValue { value: value.to_owned(), metadata };
            let held = Held::read(Some(&stored), "prod");
            assert_eq!(held.owner().map(|owner| owner.name.as_str()), owner, "{name}");
            let is_told = matches!(held, Held::Ours { digest: Some(_), .. });
            assert!(!is_told, "{name}: the digest is another value's");
        }
    }
}
