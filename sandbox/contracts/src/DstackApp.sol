// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.22;

import {Ownable2StepUpgradeable} from "@openzeppelin/contracts-upgradeable/access/Ownable2StepUpgradeable.sol";
import {OwnableUpgradeable} from "@openzeppelin/contracts-upgradeable/access/OwnableUpgradeable.sol";
import {DstackAppBase} from "./DstackAppBase.sol";

/// The current generation: the new owner must accept ownership, TCB can be required to be up to date, and each change
/// emits PolicyChanged besides its own event.
contract DstackApp is DstackAppBase, Ownable2StepUpgradeable {
    event RequireTcbUpToDateSet(bool requireUpToDate);
    event PolicyChanged(address indexed actor, bytes32 indexed policy, bytes32 indexed value, bool allowed);

    bool public requireTcbUpToDate;

    function initialize(
        address initialOwner,
        bool disableUpgradesNow,
        bool requireUpToDate,
        bool anyDevice,
        bytes32 deviceId,
        bytes32 composeHash
    ) external initializer {
        requireTcbUpToDate = requireUpToDate;
        _setUp(initialOwner, disableUpgradesNow, anyDevice, deviceId, composeHash);
    }

    function setRequireTcbUpToDate(bool requireUpToDate) external onlyOwner {
        requireTcbUpToDate = requireUpToDate;
        emit RequireTcbUpToDateSet(requireUpToDate);
        _policyChanged("require-tcb-up-to-date", bytes32(0), requireUpToDate);
    }

    function version() external pure returns (uint256) {
        return 2;
    }

    function transferOwnership(address newOwner) public override(OwnableUpgradeable, Ownable2StepUpgradeable) {
        super.transferOwnership(newOwner);
    }

    function _transferOwnership(address newOwner) internal override(OwnableUpgradeable, Ownable2StepUpgradeable) {
        super._transferOwnership(newOwner);
    }

    function _tcbAccepted(string calldata tcbStatus) internal view override returns (bool) {
        return !requireTcbUpToDate || keccak256(bytes(tcbStatus)) == keccak256("UpToDate");
    }

    function _policyChanged(string memory policy, bytes32 value, bool allowed) internal override {
        emit PolicyChanged(_msgSender(), keccak256(bytes(policy)), value, allowed);
    }
}
