// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.22;

import {DstackAppBase} from "./DstackAppBase.sol";

/// The older generation: ownership moves in one step, no TCB rule, no version(), no PolicyChanged.
contract DstackAppV1 is DstackAppBase {
    function _tcbAccepted(string calldata) internal pure override returns (bool) {
        return true;
    }

    function _policyChanged(string memory, bytes32, bool) internal override {}
}
