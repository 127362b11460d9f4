// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.22;

import {OwnableUpgradeable} from "@openzeppelin/contracts-upgradeable/access/OwnableUpgradeable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts-upgradeable/proxy/utils/UUPSUpgradeable.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// What a booting CVM asks: may this measurement run?
interface IAppAuth {
    struct AppBootInfo {
        address appId;
        bytes32 composeHash;
        address instanceId;
        bytes32 deviceId;
        bytes32 mrAggregated;
        bytes32 mrSystem;
        bytes32 osImageHash;
        string tcbStatus;
        string[] advisoryIds;
    }

    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool, string memory);
}

/// What an owner manages on every generation of the contract.
interface IAppAuthBasicManagement {
    function addComposeHash(bytes32 composeHash) external;
    function removeComposeHash(bytes32 composeHash) external;
    function addDevice(bytes32 deviceId) external;
    function removeDevice(bytes32 deviceId) external;
}

/// The allowlists that every generation of DstackApp shares; a generation adds its ownership and what came with it.
/// Adding what is there, and removing what is not, succeeds and emits its event all the same.
abstract contract DstackAppBase is OwnableUpgradeable, UUPSUpgradeable, IERC165, IAppAuth, IAppAuthBasicManagement {
    event ComposeHashAdded(bytes32 composeHash);
    event ComposeHashRemoved(bytes32 composeHash);
    event DeviceAdded(bytes32 deviceId);
    event DeviceRemoved(bytes32 deviceId);
    event AllowAnyDeviceSet(bool allowAny);
    event UpgradesDisabled();

    mapping(bytes32 composeHash => bool) public allowedComposeHashes;
    bool private _upgradesDisabled;
    bool public allowAnyDevice;
    mapping(bytes32 deviceId => bool) public allowedDeviceIds;

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor() {
        _disableInitializers();
    }

    function initialize(
        address initialOwner,
        bool disableUpgradesNow,
        bool anyDevice,
        bytes32 deviceId,
        bytes32 composeHash
    ) external initializer {
        _setUp(initialOwner, disableUpgradesNow, anyDevice, deviceId, composeHash);
    }

    /// A zero device or hash means none.
    function _setUp(
        address initialOwner,
        bool disableUpgradesNow,
        bool anyDevice,
        bytes32 deviceId,
        bytes32 composeHash
    ) internal onlyInitializing {
        require(initialOwner != address(0), "invalid owner address");
        __Ownable_init(initialOwner);
        _upgradesDisabled = disableUpgradesNow;
        allowAnyDevice = anyDevice;
        if (deviceId != bytes32(0)) {
            allowedDeviceIds[deviceId] = true;
            emit DeviceAdded(deviceId);
        }
        if (composeHash != bytes32(0)) {
            allowedComposeHashes[composeHash] = true;
            emit ComposeHashAdded(composeHash);
        }
    }

    function addComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = true;
        emit ComposeHashAdded(composeHash);
        _policyChanged("compose-hash", composeHash, true);
    }

    function removeComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = false;
        emit ComposeHashRemoved(composeHash);
        _policyChanged("compose-hash", composeHash, false);
    }

    function addDevice(bytes32 deviceId) external onlyOwner {
        allowedDeviceIds[deviceId] = true;
        emit DeviceAdded(deviceId);
        _policyChanged("device", deviceId, true);
    }

    function removeDevice(bytes32 deviceId) external onlyOwner {
        allowedDeviceIds[deviceId] = false;
        emit DeviceRemoved(deviceId);
        _policyChanged("device", deviceId, false);
    }

    function setAllowAnyDevice(bool allowAny) external onlyOwner {
        allowAnyDevice = allowAny;
        emit AllowAnyDeviceSet(allowAny);
        _policyChanged("allow-any-device", bytes32(0), allowAny);
    }

    function disableUpgrades() external onlyOwner {
        _upgradesDisabled = true;
        emit UpgradesDisabled();
        _policyChanged("upgrades-disabled", bytes32(0), true);
    }

    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool, string memory) {
        if (!_tcbAccepted(bootInfo.tcbStatus)) return (false, "TCB status is not up to date");
        if (!allowedComposeHashes[bootInfo.composeHash]) return (false, "Compose hash not allowed");
        if (!allowAnyDevice && !allowedDeviceIds[bootInfo.deviceId]) return (false, "Device not allowed");
        return (true, "");
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IAppAuth).interfaceId || interfaceId == type(IAppAuthBasicManagement).interfaceId
            || interfaceId == type(IERC165).interfaceId;
    }

    function _tcbAccepted(string calldata tcbStatus) internal view virtual returns (bool);

    /// Called after each change; `policy` is the name whose keccak256 newer generations publish.
    function _policyChanged(string memory policy, bytes32 value, bool allowed) internal virtual;

    function _authorizeUpgrade(address implementation) internal override onlyOwner {
        require(!_upgradesDisabled, "Upgrades are permanently disabled");
        _policyChanged("implementation-upgrade", bytes32(uint256(uint160(implementation))), true);
    }
}
