//! The command line, parsed by hand.

use testbed::stack::Ports;

/// The arguments that are still to be read.
pub struct Args(pub Vec<String>);

impl Args {
    pub fn command(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    pub fn flag(&mut self, name: &str) -> bool {
        let place = self.0.iter().position(|arg| arg == name);
        place.map(|place| self.0.remove(place)).is_some()
    }

    pub fn value(&mut self, name: &str) -> Result<Option<String>, String> {
        let Some(place) = self.0.iter().position(|arg| arg == name) else { return Ok(None) };
        if place + 1 == self.0.len() {
            return Err(format!("{name} needs a value"));
        }
        self.0.remove(place);
        Ok(Some(self.0.remove(place)))
    }

    /// The ports: the fixed ones, unless a flag names another.
    pub fn ports(&mut self) -> Result<Ports, String> {
        let mut ports = Ports::FIXED;
        for (name, port) in [
            ("--dynamodb-port", &mut ports.dynamodb),
            ("--lambda-port", &mut ports.lambda),
            ("--kv-port", &mut ports.kv),
            ("--api-keys-port", &mut ports.api_keys),
            ("--secrets-port", &mut ports.secrets),
            ("--faults-port", &mut ports.faults),
        ] {
            if let Some(value) = self.value(name)? {
                *port = value.parse().map_err(|_| format!("{name} {value} is not a port"))?;
            }
        }
        Ok(ports)
    }

    /// Fails if an argument is left.
    pub fn end(self) -> Result<(), String> {
        let left = self.0.first();
        left.map_or(Ok(()), |arg| Err(format!("unknown argument {arg}; see testbed help")))
    }
}
