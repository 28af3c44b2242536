F=node_modules/@foundry-rs/forge-linux-amd64/bin/forge
FORGE_SNAPSHOT_CHECK=false $F test --isolate --mc GasTest --gas-limit 100000000000 2>&1 | grep -v "^$" | tail -${1:-8} ; cat snapshots/redeem.json
